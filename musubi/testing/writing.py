"""Networks as files in the layouts that models are published in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from musubi.keymap import KeyMap

if TYPE_CHECKING:
    from torch import Tensor, nn


def original_tensors(model: nn.Module, keys: KeyMap) -> dict[str, Tensor]:
    """Return a model's tensors under original names and in original shapes."""
    import torch

    parameters = dict(model.named_parameters())
    originals = dict.fromkeys(keys.to_original(name)[0] for name in parameters)
    made = {name: torch.cat([parameters[part.name].detach() for part in keys.to_library(name)]) for name in originals}
    for name, leading in (("visual.cls_embedding", (1, 1)), ("visual.pos_embedding", (1,))):
        if name in made:
            made[name] = made[name].view(*leading, *made[name].shape)
    return {name: value.contiguous() for name, value in made.items()}


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors as a safetensors file with a few words about them."""
    from safetensors.torch import save_file

    save_file(dict(tensors), path, metadata={"format": "pt", **metadata})
