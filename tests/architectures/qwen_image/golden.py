"""The reference's tiny Qwen-Image models: their checkpoint as a file, loaded by us, and their call."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import pad

from musubi.architecture import WeightHook
from musubi.architectures.qwen_image.transformer import PreciseQwenImage, load_transformer
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


def load(path: Path, dtype: torch.dtype = torch.float32, *, on_weight: WeightHook | None = None) -> PreciseQwenImage:
    """Load a transformer on the CPU."""
    with open_checkpoint(path) as checkpoint:
        return load_transformer(checkpoint, device="cpu", dtype=dtype, on_weight=on_weight)


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
    """Return (B, H/2 W/2, 4 C) of (B, C, 1, H, W): channels first, then the rows and columns of a patch."""
    batch, channels, _, height, width = latents.shape
    patches = latents.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, height * width // 4, channels * 4)


def unpack(tokens: Tensor, shape: torch.Size) -> Tensor:
    """Return (B, C, 1, H, W) of the first tokens."""
    batch, channels, _, height, width = shape
    patches = tokens[:, : height * width // 4].reshape(batch, height // 2, width // 2, channels, 2, 2)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(shape)


def _numbered(inputs: dict[str, Tensor], prefix: str) -> list[Tensor]:
    count = sum(name.startswith(prefix) for name in inputs)
    return [inputs[f"{prefix}{index}"] for index in range(count)]
