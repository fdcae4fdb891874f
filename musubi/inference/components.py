"""What the codec's components take on the device, from their files' headers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from musubi.core.errors import MusubiError
from musubi.inference.decoding import DECODER
from musubi.memory.budget import size
from musubi.memory.components import policies_within
from musubi.memory.plan import Other
from musubi.memory.policy import MemoryPolicy

if TYPE_CHECKING:
    import torch

    from musubi.architecture import Architecture, Stage


def component_bytes(
    architecture: Architecture, name: str, *, dtype: torch.dtype, policies: Sequence[MemoryPolicy]
) -> int | None:
    """Return the bytes of a component's weights on the device; None if its file is not on this disk.

    What policies quantise counts as that, and what they leave on the host as nothing.
    """
    from musubi.inference.component_sizes import device_bytes
    from musubi.weights.checkpoint import open_checkpoint

    component = architecture.component(name)
    within = policies_within(policies, component)
    try:
        with open_checkpoint(architecture.weight(name).resolve(offline=True)) as checkpoint:
            return device_bytes(checkpoint, component, within, dtype=dtype)
    except (MusubiError, OSError):
        return None


def encoding(
    architecture: Architecture, policies: Sequence[MemoryPolicy], stages: Sequence[Stage] | None = None
) -> list[Other]:
    """Return what every stage of encoding needs: its components together, which are then freed.

    ``stages`` are the architecture's of caching unless others are given, as those of a generation.
    """
    wanted = architecture.stages if stages is None else stages
    return [_stage(f"encoding {stage.name}", architecture, stage.components, policies) for stage in wanted]


def decoder_bytes(architecture: Architecture, policies: Sequence[MemoryPolicy]) -> int | None:
    """Return the bytes of the decoder's weights while it draws; None if its file is not on this disk."""
    import torch

    return component_bytes(architecture, DECODER, dtype=torch.float32, policies=policies)


def _stage(name: str, architecture: Architecture, components: Sequence[str], policies: Sequence[MemoryPolicy]) -> Other:
    import torch

    found = {p: component_bytes(architecture, p, dtype=torch.bfloat16, policies=policies) for p in components}
    told = [f"{part} {size(count)}" for part, count in found.items() if count is not None]
    told += [f"{part}, whose file is not here" for part, count in found.items() if count is None]
    return Other(name=name, device=sum(count or 0 for count in found.values()), what=f"weights of {', '.join(told)}")
