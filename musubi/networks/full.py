"""Training the model itself instead of adapters over it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import field, one_of
from musubi.networks.network import Network

if TYPE_CHECKING:
    import torch
    from torch import Generator, nn

    from musubi.architecture import Layout
    from musubi.keymap import KeyMap
    from musubi.networks.trained import Trained

WeightsType = Literal["float32", "bfloat16"]


@attrs.frozen(kw_only=True)
class FullFineTune(Network):
    """Train the denoiser's own weights: all of them, or those that ``targets`` leaves.

    A run writes a whole checkpoint in ORIGINAL names, tensor by tensor, which loads wherever the base model does.

    Args:
        targets: Which modules are trained, by patterns (full match) on ORIGINAL names; by default every one that has
            parameters. ``Targets(exclude=("txt_in",))`` trains all but one.
        weights: The type that weights are kept in. ``float32`` costs 4 bytes each and loses nothing; the model still
            computes in the trainer's precision. ``bfloat16`` costs 2, needs that precision, and rounds every update
            stochastically, so that small ones are not lost on average.

    Example:
        >>> from musubi import Adafactor, FullFineTune
        >>> FullFineTune(weights="bfloat16").title
        'all weights in bfloat16'
    """

    kind: ClassVar[str] = "full"
    trains_base: ClassVar[bool] = True

    weights: WeightsType = field(default="float32", check=one_of("float32", "bfloat16"))

    @property
    def title(self) -> str:
        """How much is trained, in which type."""
        whole = not (self.targets.preset or self.targets.include or self.targets.exclude)
        return f"{'all' if whole else 'some'} weights in {self.weights}"

    def prepare(self, model: nn.Module, *, keys: KeyMap, layout: Layout, generator: Generator) -> Trained:
        """Return the model's own parameters; nothing is drawn."""
        from musubi.networks.full_weights import FullWeights

        return FullWeights.of(model, self.targets, keys=keys, layout=layout)

    def trainable(self, model: nn.Module, *, keys: KeyMap, layout: Layout) -> int:
        """Return how many numbers the trained parameters have."""
        from musubi.networks.full_weights import targeted_parameters

        chosen = targeted_parameters(model, self.targets, keys=keys, layout=layout)
        return sum(parameter.numel() for parameter in chosen.values())

    def weights_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Return the type that weights are kept in.

        Raises:
            ConfigError: It has fewer digits than the model computes with.
        """
        import torch

        kept = torch.float32 if self.weights == "float32" else torch.bfloat16
        if kept.itemsize < dtype.itemsize:
            message = f"is {self.weights!r}, but this run computes in {str(dtype).removeprefix('torch.')}"
            hint = 'set precision="bfloat16" (a CPU computes in float32 unless told), or weights="float32"'
            raise ConfigError("full fine-tuning", [Issue("network.weights", message, hint)])
        return kept
