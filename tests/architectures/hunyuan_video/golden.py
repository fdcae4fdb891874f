"""The reference's tiny HunyuanVideo models: their checkpoint as a file, loaded by us, and their call."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from musubi.architecture import WeightHook
from musubi.architectures.hunyuan_video.transformer import PreciseHunyuanVideo, load_transformer
from musubi.weights.checkpoint import open_checkpoint
from tests.parity.cases import golden, golden_stems, part


def stems() -> list[str]:
    """Return the golden cases of transformers; encoders and VAEs have stems that begin alike."""
    return [s for s in golden_stems("models_hunyuan") if golden(s)[0]["component"] == "HYVideoDiffusionTransformer"]


def write(stem: str, folder: Path, *, prefix: str = "", changes: dict[str, Tensor] | None = None) -> Path:
    """Write a golden case's checkpoint, some of its tensors replaced, as a single file in original names."""
    meta, tensors = golden(stem)
    content = {f"{prefix}{name}": value for name, value in {**part(tensors, "ckpt."), **(changes or {})}.items()}
    path = folder / "dit.safetensors"
    axes = json.dumps(meta["config"]["rope_dim_list"])
    save_file(content, path, metadata={"hunyuan_video.rope_axes_dim": axes})
    return path


def load(path: Path, dtype: torch.dtype = torch.float32, *, on_weight: WeightHook | None = None) -> PreciseHunyuanVideo:
    """Load a transformer on the CPU."""
    with open_checkpoint(path) as checkpoint:
        return load_transformer(checkpoint, device="cpu", dtype=dtype, on_weight=on_weight)


def predict(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Return the velocity for a golden case's inputs."""
    guided = any(".guidance_embedder." in name for name, _ in model.named_parameters())
    predicted: Tensor = model(
        inputs["x"],
        encoder_hidden_states=inputs["text_states"],
        pooled_projections=inputs["text_states_2"],
        timestep=inputs["t"],
        encoder_attention_mask=inputs["text_mask"],
        guidance=inputs["guidance"] if guided else None,
    )
    return predicted
