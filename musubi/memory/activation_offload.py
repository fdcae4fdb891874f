"""Letting activations wait in host memory until backward needs them."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import count, field
from musubi.memory.policy import FitContext, MemoryPolicy, Phase, Placement, blocks_of

if TYPE_CHECKING:
    from torch import nn

    from musubi.memory.sizes import Sizes


@attrs.frozen(kw_only=True)
class ActivationOffload(MemoryPolicy):
    """Copy what blocks keep for backward to pinned host memory while forward runs, and back just ahead of its use.

    With ``GradientCheckpointing`` that is one activation for each block: 335 MB in a 14B Wan at 832x480x81, 13 GB in
    all. Without it, all that the blocks keep goes, which is ten to twenty times as much and seldom hides behind
    computing. Copies run beside the computation, in both directions; what several blocks share goes once, weights never
    go. Outputs and gradients are the same bit for bit. Nothing is done where no gradient is asked for.

    Args:
        min_bytes: What is smaller stays: a small copy costs more time than it frees memory.
        depth: How many activations are on their way at a time; so many more are on the device.
        keep_last: The last blocks, which keep theirs on the device: backward begins with them.

    Example:
        >>> from musubi import ActivationOffload
        >>> ActivationOffload(keep_last=2).to_dict()
        {'kind': 'activation_offload', 'min_bytes': 8388608, 'depth': 2, 'keep_last': 2}
    """

    kind: ClassVar[str] = "activation_offload"
    phase: ClassVar[Phase] = Phase.ACTIVATIONS

    min_bytes: int = field(default=8 << 20, check=count(1))
    depth: int = field(default=2, check=count(1))
    keep_last: int = field(default=1, check=count(0))

    def check(self, context: FitContext) -> Iterable[Issue]:
        if not context.training:
            hint = "leave it out: generating keeps no activations"
            yield Issue("", "ActivationOffload moves what training keeps for backward", hint)
        yield from self._too_many_kept(context.title, context.blocks)

    def place(self, model: nn.Module, placement: Placement) -> AbstractContextManager[None]:
        return self._offloading(model, placement)

    @contextmanager
    def _offloading(self, model: nn.Module, placement: Placement) -> Generator[None]:
        from musubi.memory.offloading import offloading

        blocks = blocks_of(model, placement.layout)
        issues = tuple(self._too_many_kept(placement.title, len(blocks)))
        if issues:
            raise ConfigError(type(self).__name__, issues)
        chosen = blocks[: len(blocks) - self.keep_last]
        with offloading(chosen, device=placement.device, min_bytes=self.min_bytes, depth=self.depth):
            yield

    def estimate(self, sizes: Sizes) -> Sizes:
        """Return the sizes with the boundaries that are on the host only, when backward begins.

        Those of the last ``keep_last`` blocks never go, and ``depth`` more are on both sides. What blocks that are not
        checkpointed keep goes as well, but is not counted: how much of it is large enough depends on the bucket.
        """
        away = max(0, sizes.checkpointed - self.keep_last - self.depth)
        return attrs.evolve(sizes, offloaded=away, offloaded_above=self.min_bytes - 1)

    def _too_many_kept(self, title: str, blocks: int | None) -> Iterable[Issue]:
        if blocks is not None and self.keep_last >= blocks:
            message = f"must be between 0 and {blocks - 1} for {title}, got {self.keep_last}"
            yield Issue("keep_last", message, f"{blocks} blocks exist; nothing would be offloaded")
