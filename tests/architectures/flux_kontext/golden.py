"""The reference's tiny FLUX.1 Kontext: its checkpoint as a file, loaded by us, and its call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from musubi.architecture import WeightHook
from musubi.architectures.flux_kontext.transformer import PreciseFlux, load_transformer
from musubi.weights.checkpoint import open_checkpoint
from tests.parity.cases import golden, part


def write(stem: str, folder: Path, *, prefix: str = "", changes: dict[str, Tensor] | None = None) -> Path:
    """Write a golden case's checkpoint, some of its tensors replaced, as a single file in original names."""
    meta, tensors = golden(stem)
    content = {f"{prefix}{name}": value for name, value in {**part(tensors, "ckpt."), **(changes or {})}.items()}
    path = folder / "dit.safetensors"
    save_file(content, path, metadata=metadata(meta))
    return path


def metadata(meta: dict[str, Any]) -> dict[str, str]:
    """Return what tells the sizes that shapes do not."""
    return {"flux.axes_dims_rope": json.dumps(meta["config"]["axes_dim"])}


def load(path: Path, dtype: torch.dtype = torch.float32, *, on_weight: WeightHook | None = None) -> PreciseFlux:
    """Load a transformer on the CPU."""
    with open_checkpoint(path) as checkpoint:
        return load_transformer(checkpoint, device="cpu", dtype=dtype, on_weight=on_weight)


def predict(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Return the velocity of the picture for a golden case's inputs, packed and unpacked as FLUX.1 does it."""
    noisy = inputs["noisy_latents"]
    pictures = [noisy, inputs["control_latents"]]
    guided = any(".guidance_embedder." in name for name, _ in model.named_parameters())
    predicted: Tensor = model(
        torch.cat([pack(picture) for picture in pictures], dim=1),
        encoder_hidden_states=inputs["t5_vec"],
        pooled_projections=inputs["clip_l_pooler"],
        timestep=inputs["timesteps"],
        img_ids=torch.cat([positions(picture, index=index) for index, picture in enumerate(pictures)]),
        txt_ids=torch.zeros(inputs["t5_vec"].shape[1], 3),
        guidance=inputs["guidance"] if guided else None,
    )
    return unpack(predicted, noisy.shape)


def pack(latents: Tensor) -> Tensor:
    """Return (B, H/2 W/2, 4 C) of (B, C, H, W): channels first, then the rows and columns of a patch."""
    batch, channels, height, width = latents.shape
    patches = latents.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, height * width // 4, channels * 4)


def unpack(tokens: Tensor, shape: torch.Size) -> Tensor:
    """Return (B, C, H, W) of the first tokens."""
    batch, channels, height, width = shape
    patches = tokens[:, : height * width // 4].reshape(batch, height // 2, width // 2, channels, 2, 2)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(shape)


def positions(latents: Tensor, *, index: int) -> Tensor:
    """Return index, row and column of every token."""
    rows, columns = latents.shape[-2] // 2, latents.shape[-1] // 2
    grid = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).float()
    return torch.cat([torch.full((rows * columns, 1), float(index)), grid], dim=1)
