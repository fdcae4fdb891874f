"""What a bucket needs, in bytes and in seconds, as a plan states it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import attrs

from musubi.memory.hardware import Hardware

if TYPE_CHECKING:
    from musubi.memory.sizes import Sizes
    from musubi.memory.timeline import Need

SLACK = 0.04
"""Share of what comes and goes that the allocator loses between blocks of memory in use; an assumption."""

CONTEXT = 400 << 20
"""Bytes that CUDA and its libraries take for themselves on a device; an assumption."""


@attrs.frozen(kw_only=True)
class Balance:
    """Seconds of computing and of copying in each pass of a batch on a device.

    ``forward`` and ``backward`` (with what is computed again; 0 without training) are computing, ``copying`` is what
    moves to the device in each of the two. ``free`` is the share of what is swapped that copies in no time of its own.
    """

    forward: float
    backward: float
    copying: float
    passes: int = 1

    @property
    def seconds(self) -> float:
        """The whole step, at its lower bound: in each pass the longer of computing and copying."""
        back = max(self.backward, self.copying) if self.backward else 0.0
        return self.passes * (max(self.forward, self.copying) + back)

    @property
    def slowdown(self) -> float:
        """How much longer the step takes than without copying: 0.1 is a tenth."""
        return self.seconds / (self.passes * (self.forward + self.backward)) - 1

    @property
    def free(self) -> float:
        """The share of what is copied that hides behind computing in the forward pass, which has less of it."""
        return 1.0 if not self.copying else min(1.0, self.forward / self.copying)


@attrs.frozen(kw_only=True)
class Row:
    """One bucket's need of device memory, in bytes.

    Args:
        bucket: Its name.
        tokens: Tokens of a batch.
        weights: The model's weights, and the buffers that swapped ones take turns in.
        conditions: Inputs, text, noise level and positions, which all blocks share.
        kept: What waits for backward.
        working: What comes and goes at the worst moment: a block that is computed again, dequantised copies.
        trained: What is trained, what the optimiser knows of it, and the gradients that are there at the worst moment.
        slack: What the allocator loses, and the driver takes.
        pinned: Bytes of pinned host memory: swapped weights and offloaded activations.
        flops: Operations of a step, forward and all.
        balance: Computing against copying; None where the device's speed is not known.
    """

    bucket: str
    tokens: int
    weights: int
    conditions: int
    kept: int
    working: int
    trained: int
    slack: int = 0
    pinned: int = 0
    flops: int = 0
    balance: Balance | None = None

    @property
    def activations(self) -> int:
        """All that comes with the batch: conditions, what is kept and what is worked on."""
        return self.conditions + self.kept + self.working

    @property
    def allocated(self) -> int:
        """Bytes in tensors at the worst moment: what torch calls allocated."""
        return self.weights + self.activations + self.trained

    @property
    def total(self) -> int:
        """Everything together."""
        return self.allocated + self.slack

    @property
    def parts(self) -> tuple[tuple[str, int], ...]:
        """Bytes by what takes them, in the order in which they are drawn."""
        return (
            ("weights", self.weights),
            ("trained", self.trained),
            ("conditions", self.conditions),
            ("kept for backward", self.kept),
            ("working", self.working),
            ("slack", self.slack),
        )


def row_of(
    bucket: str,
    *,
    tokens: int,
    sizes: Sizes,
    need: Need,
    trained: int,
    gradients: int = 0,
    accelerated: bool,
    hardware: Hardware | None,
    passes: int = 1,
    compute: Literal["int8", "fp8"] = "int8",
) -> Row:
    """Return the need of one bucket at its worst moment: in a pass, or at the update with all gradients."""
    slack = round(SLACK * (need.total - need.gradients)) + (CONTEXT if accelerated else 0)
    row = Row(
        bucket=bucket,
        tokens=tokens,
        weights=sizes.weights,
        conditions=need.conditions,
        kept=need.kept,
        working=need.working,
        trained=trained + need.gradients,
        slack=slack,
        pinned=sizes.pinned + need.waiting,
        flops=passes * sum((*need.forward, *need.backward)),
        balance=_balance(sizes, need, hardware, passes, compute),
    )
    update = attrs.evolve(row, conditions=0, kept=0, working=0, trained=trained + gradients)
    return max(row, update, key=lambda moment: moment.total)


def _balance(
    sizes: Sizes, need: Need, hardware: Hardware | None, passes: int, compute: Literal["int8", "fp8"]
) -> Balance | None:
    if hardware is None or not sum(need.forward):
        return None
    forward, backward = (hardware.seconds(*flops, compute=compute) for flops in (need.forward, need.backward))
    if forward is None or backward is None:
        return None
    copying = (sizes.streamed + need.waiting) / hardware.bandwidth
    return Balance(forward=forward, backward=backward, copying=copying, passes=passes)
