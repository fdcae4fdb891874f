"""The reference's tiny Qwen-Image models: their checkpoint as a file, loaded by us, and their call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import prod
from pathlib import Path

import attrs
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import pad

from musubi.architecture import WeightHook
from musubi.architectures.qwen_image.facts import DitFacts
from musubi.architectures.qwen_image.transformer import PreciseQwenImage, load_transformer
from musubi.embedding.patches import patched, unpatched
from musubi.weights.checkpoint import open_checkpoint
from tests.parity.cases import golden, part


def write(stem: str, folder: Path, *, prefix: str = "", changes: dict[str, Tensor] | None = None) -> Path:
    """Write a golden case's checkpoint, some of its tensors replaced, as a single file."""
    meta, tensors = golden(stem)
    content = {f"{prefix}{name}": value for name, value in {**part(tensors, "ckpt."), **(changes or {})}.items()}
    path = folder / "dit.safetensors"
    axes = json.dumps(meta["config"]["axes_dims_rope"])
    save_file(content, path, metadata={"qwen_image.axes_dims_rope": axes})
    return path


def load(
    path: Path, dtype: torch.dtype = torch.float32, *, on_weight: WeightHook | None = None, zero_time: bool = False
) -> PreciseQwenImage:
    """Load a transformer on the CPU; ``zero_time`` is what only the task tells of Edit-2511."""
    with open_checkpoint(path) as checkpoint:
        facts = attrs.evolve(DitFacts.of(checkpoint), zero_time=zero_time)
        return load_transformer(checkpoint, device="cpu", dtype=dtype, on_weight=on_weight, facts=facts)


def predict(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Return the velocity (B, C, 1, H, W) for a golden case's inputs, packed and unpacked as Qwen-Image does it."""
    noisy = inputs["noisy_latents"]
    controls, texts = _numbered(inputs, "latents_control_"), _numbered(inputs, "vl_embed_")
    lengths = torch.tensor([len(text) for text in texts])
    longest = int(lengths.max())
    predicted: Tensor = model(
        torch.cat([pack(latents) for latents in (noisy, *controls)], dim=1),
        encoder_hidden_states=torch.stack([pad(text, (0, 0, 0, longest - len(text))) for text in texts]),
        encoder_hidden_states_mask=torch.arange(longest)[None] < lengths[:, None],
        timestep=inputs["timesteps"],
        img_shapes=[(1, latents.shape[-2] // 2, latents.shape[-1] // 2) for latents in (noisy, *controls)],
    )
    return unpack(predicted, noisy.shape)


def pack(latents: Tensor) -> Tensor:
    """Return (B, F H/2 W/2, 4 C) of (B, C, F, H, W): channels first, then the rows and columns of a patch."""
    return patched(latents, (1, 2, 2))


def unpack(tokens: Tensor, shape: Sequence[int]) -> Tensor:
    """Return (B, C, F, H, W) of the first tokens."""
    return unpatched(tokens[:, : prod(shape[2:]) // 4], shape[2:], (1, 2, 2))


def _numbered(inputs: dict[str, Tensor], prefix: str) -> list[Tensor]:
    count = sum(name.startswith(prefix) for name in inputs)
    return [inputs[f"{prefix}{index}"] for index in range(count)]
