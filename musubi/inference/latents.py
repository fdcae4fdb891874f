"""What a generation comes to before it is decoded, as a value and as a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Self

import attrs

from musubi.core import atomic
from musubi.core.errors import ConfigError, DataError, Issue, shown

if TYPE_CHECKING:
    from torch import Tensor

    from musubi.architecture import Architecture

_TENSOR = "latent"
_FPS, _TRIM = "fps", "trim_tail"


def _unbatched(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu().float()
    tensor = tensor[0] if tensor.ndim == 5 and len(tensor) == 1 else tensor
    if tensor.ndim != 4:
        message = f"must have the shape (channels, frames, height, width), got {tuple(tensor.shape)}"
        raise ConfigError("Latents", [Issue("tensor", message)])
    return tensor


def _text(facts: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(facts))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Latents:
    """Latents, float32 on the CPU of shape (channels, frames, height, width), and what their picture or clip is to be.

    ``fps`` is in frames a second, None the model's own; ``trim_tail`` frames at the end are dropped after decoding.
    Files hold one tensor ``latent``, as musubi-tuner's do, which are read as well.

    Example:
        >>> import torch
        >>> from musubi import Latents
        >>> Latents(tensor=torch.zeros(16, 21, 60, 104), fps=16)
        <Latents of 21 frames, 104x60, 16 channels>
    """

    suffix: ClassVar[str] = ".safetensors"

    tensor: Tensor = attrs.field(converter=_unbatched)
    fps: float | None = None
    trim_tail: int = 0
    metadata: Mapping[str, str] = attrs.field(factory=dict, converter=_text)

    def save(self, path: Path | str) -> Path:
        """Write a ``.safetensors`` file atomically and return its path.

        Raises:
            ConfigError: The suffix is another one.
        """
        from safetensors.torch import save_file

        if Path(path).suffix.lower() != self.suffix:
            raise ConfigError("save", [Issue(shown(path), f"must end in {self.suffix}")])
        facts = {**self.metadata, _TRIM: str(self.trim_tail)}
        if self.fps is not None:
            facts[_FPS] = repr(float(self.fps))
        with atomic.replacing(path) as temporary:
            save_file({_TENSOR: self.tensor.contiguous()}, temporary, metadata=facts)
        return Path(path)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a file that ``save`` or musubi-tuner wrote.

        Raises:
            DataError: It cannot be read, or holds no latents.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                if _TENSOR not in file.keys():  # noqa: SIM118 - it is no mapping
                    hint = "give what Latents.save or musubi-tuner's --output_type latent wrote"
                    raise DataError("cannot read latents", [Issue(shown(path), f"holds no tensor {_TENSOR!r}", hint)])
                tensor, facts = file.get_tensor(_TENSOR), dict(file.metadata() or {})
        except (OSError, SafetensorError) as error:
            hint = "give a .safetensors file of latents"
            raise DataError("cannot read latents", [Issue(shown(path), str(error), hint)]) from error
        try:
            fps, trim = facts.pop(_FPS, None), int(facts.pop(_TRIM, "0"))
            return cls(tensor=tensor, fps=None if fps is None else float(fps), trim_tail=trim, metadata=facts)
        except ValueError as error:
            raise DataError("cannot read latents", [Issue(shown(path), f"{_FPS} or {_TRIM}: {error}")]) from error

    def __repr__(self) -> str:
        channels, frames, height, width = self.tensor.shape
        return f"<Latents of {frames} frames, {width}x{height}, {channels} channels>"


def check_latents(latents: Latents, model: Architecture) -> None:
    """Refuse latents that a model cannot decode.

    Raises:
        ConfigError: They have other channels, or fewer frames than are dropped.
    """
    channels, cells = latents.tensor.shape[:2]
    geometry, issues = model.geometry, list[Issue]()
    if channels != geometry.channels:
        message = f"have {channels} channels, those of {model.title} have {geometry.channels}"
        issues.append(Issue("latents", message, "decode them with the model that drew them"))
    frames = (cells - 1) * geometry.frame_step + 1
    if latents.trim_tail >= frames:
        issues.append(Issue("trim_tail", f"drops {latents.trim_tail} of {frames} frames", "keep at least one"))
    if issues:
        raise ConfigError("cannot decode", issues)
