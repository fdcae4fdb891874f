"""The rows of ``bench_device_memory``: which policies for which job, and the goals that they are held against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from musubi import ActivationOffload, BlockSwap, FP8Scaled, GradientCheckpointing, Int8Scaled, Memory
from musubi.memory.policy import MemoryPolicy

Base = Literal["plain", "fp8", "int8"]
_BASES: Mapping[Base, tuple[MemoryPolicy, ...]] = {"plain": (), "fp8": (FP8Scaled(),), "int8": (Int8Scaled(),)}


@attrs.frozen(kw_only=True)
class Row:
    """A job with policies: gradient checkpointing, weights of a kind, some blocks swapped, activations offloaded.

    With a ``budget`` the policies are those that ``Memory.fit`` chooses.
    ``published`` and ``goal`` are GiB of device memory; ``slowdown`` is how much longer than the row ``resident``,
    which is the same but for the swap, a step may take.
    """

    job: str
    base: Base = "plain"
    swapped: int = 0
    offloaded: bool = False
    budget: str | None = None
    published: float | None = None
    goal: float | None = None
    resident: str | None = None
    slowdown: float | None = None

    def counts(self, *, warm_up: int, steps: int) -> tuple[int, int]:
        """Return how many steps warm up and how many are measured: of a video, whose steps are long, a fifth."""
        return (max(1, warm_up // 5), max(1, steps // 5)) if self.job == "wan-video" else (warm_up, steps)

    def policies(self, blocks: int) -> tuple[MemoryPolicy, ...]:
        """Return the policies for a model of so many blocks; a smaller one has as large a part of them swapped."""
        if self.budget is not None:
            return (Memory.fit(self.budget),)
        published = 60 if self.job == "qwen" else 40
        swapped = self.swapped if blocks == published else min(blocks - 1, -(-self.swapped * blocks // published))
        swap = (BlockSwap(blocks=swapped),) if swapped else ()
        offload = (ActivationOffload(),) if self.offloaded else ()
        return (*_BASES[self.base], GradientCheckpointing(), *offload, *swap)


ROWS: Mapping[str, Row] = {
    # The four published figures of Qwen-Image at 1024x1024 come first: musubi-tuner, docs/qwen_image.md.
    "qwen/plain": Row(job="qwen", published=42, goal=41),
    "qwen/fp8": Row(job="qwen", base="fp8", published=30, goal=24),
    "qwen/fp8+16": Row(job="qwen", base="fp8", swapped=16, published=24, goal=18, resident="qwen/fp8"),
    "qwen/fp8+45": Row(job="qwen", base="fp8", swapped=45, published=12, goal=8, resident="qwen/fp8"),
    "qwen/fp8+45+offload": Row(job="qwen", base="fp8", swapped=45, offloaded=True, goal=8, resident="qwen/fp8"),
    "qwen/int8": Row(job="qwen", base="int8", goal=24),
    "qwen/int8+20": Row(job="qwen", base="int8", swapped=20, resident="qwen/int8", slowdown=0.03),
    "wan-video/plain": Row(job="wan-video"),
    "wan-video/plain+39": Row(job="wan-video", swapped=39, resident="wan-video/plain", slowdown=0.02),
    "qwen/fit-12GiB": Row(job="qwen", budget="12GiB", goal=12),
    "qwen/int8+45": Row(job="qwen", base="int8", swapped=45, goal=8, resident="qwen/int8"),
    "wan-video/offload": Row(job="wan-video", offloaded=True, resident="wan-video/plain", slowdown=0.02),
    "wan-image/plain": Row(job="wan-image"),
    "wan-image/fp8": Row(job="wan-image", base="fp8"),
    "wan-image/int8+16": Row(job="wan-image", base="int8", swapped=16),
    "wan-image/fp8+39": Row(job="wan-image", base="fp8", swapped=39, resident="wan-image/fp8"),
}
"""In the order in which they run: what matters most first, in case the time is up."""
