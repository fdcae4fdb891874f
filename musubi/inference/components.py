"""What the codec's components take on the device, from their files' headers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from musubi.core.errors import MusubiError
from musubi.inference.decoding import DECODER
from musubi.memory.components import policies_within
from musubi.memory.on_host import ComputeOnHost
from musubi.memory.plan import Other
from musubi.memory.policy import MemoryPolicy, Phase
from musubi.memory.report import size

if TYPE_CHECKING:
    from musubi.architecture import Architecture

_HALF, _FULL = 2, 4
"""Bytes of a number of an encoder, and of the decoder while it draws."""


def component_bytes(
    architecture: Architecture, name: str, *, each: int, policies: Sequence[MemoryPolicy]
) -> int | None:
    """Return the bytes of a component's weights on the device; None if its file is not on this disk.

    What policies keep in 8 bits counts as that, and what they leave on the host as nothing.
    """
    from musubi.weights.checkpoint import open_checkpoint

    within = policies_within(policies, architecture.component(name))
    if any(isinstance(policy, ComputeOnHost) for policy in within):
        return 0
    width = 1 if any(policy.phase is Phase.QUANTISE for policy in within) else each
    try:
        with open_checkpoint(architecture.weight(name).resolve(offline=True)) as checkpoint:
            sizes = [
                _count(checkpoint.shape(tensor)) * min(width, checkpoint.dtype(tensor).itemsize)
                if checkpoint.dtype(tensor).itemsize == 1
                else _count(checkpoint.shape(tensor)) * width
                for tensor in checkpoint.names()
            ]
    except (MusubiError, OSError):
        return None
    return sum(sizes)


def encoding(architecture: Architecture, policies: Sequence[MemoryPolicy]) -> list[Other]:
    """Return what every stage of encoding needs: its components together, which are then freed."""
    return [
        _stage(f"encoding {stage.name}", architecture, stage.components, policies, each=_HALF)
        for stage in architecture.stages
    ]


def decoder_bytes(architecture: Architecture, policies: Sequence[MemoryPolicy]) -> int | None:
    """Return the bytes of the decoder's weights while it draws; None if its file is not on this disk."""
    return component_bytes(architecture, DECODER, each=_FULL, policies=policies)


def _stage(
    name: str, architecture: Architecture, components: Sequence[str], policies: Sequence[MemoryPolicy], *, each: int
) -> Other:
    found = {part: component_bytes(architecture, part, each=each, policies=policies) for part in components}
    told = [f"{part} {size(count)}" for part, count in found.items() if count is not None]
    told += [f"{part}, whose file is not here" for part, count in found.items() if count is None]
    return Other(name=name, device=sum(count or 0 for count in found.values()), what=f"weights of {', '.join(told)}")


def _count(shape: Sequence[int]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total
