"""The reference's tiny FramePack models: their checkpoint as a file, loaded by us, and their calls."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from musubi.architecture import WeightHook
from musubi.architectures.framepack.transformer import History, PreciseFramePack, load_transformer
from musubi.weights.checkpoint import open_checkpoint
from tests.parity.cases import golden, golden_stems, part


def stems() -> list[str]:
    """Return the golden cases of transformers; the image encoder's stem begins alike."""
    found = golden_stems("models_framepack")
    return [stem for stem in found if golden(stem)[0]["component"] == "HunyuanVideoTransformer3DModelPacked"]


def write(stem: str, folder: Path, *, prefix: str = "", changes: dict[str, Tensor] | None = None) -> Path:
    """Write a golden case's checkpoint, some of its tensors replaced, as a single file."""
    meta, tensors = golden(stem)
    content = {f"{prefix}{name}": value for name, value in {**part(tensors, "ckpt."), **(changes or {})}.items()}
    path = folder / "dit.safetensors"
    save_file(content, path, metadata={"framepack.rope_axes_dim": json.dumps(meta["config"]["rope_axes_dim"])})
    return path


def load(path: Path, dtype: torch.dtype = torch.float32, *, on_weight: WeightHook | None = None) -> PreciseFramePack:
    """Load a transformer on the CPU."""
    with open_checkpoint(path) as checkpoint:
        return load_transformer(checkpoint, device="cpu", dtype=dtype, on_weight=on_weight)


def predict(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Return the velocity for the inputs of one of a golden case's calls."""
    predicted: Tensor = model(
        inputs["hidden_states"],
        positions=inputs["latent_indices"],
        encoder_hidden_states=inputs["encoder_hidden_states"],
        pooled_projections=inputs["pooled_projections"],
        image_embeds=inputs["image_embeddings"],
        timestep=inputs["timestep"],
        encoder_attention_mask=inputs.get("encoder_attention_mask"),
        guidance=inputs["guidance"],
        clean=_history(inputs, ""),
        clean_2x=_history(inputs, "_2x"),
        clean_4x=_history(inputs, "_4x"),
    )
    return predicted


def calls(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return the inputs of every call by its tag."""
    inputs = part(tensors, "in.")
    tags = dict.fromkeys(name.partition(".")[0] for name in inputs if "." in name)
    return {tag: part(inputs, f"{tag}.") for tag in tags}


def _history(inputs: dict[str, Tensor], size: str) -> History | None:
    if f"clean_latents{size}" not in inputs:
        return None
    return History(latents=inputs[f"clean_latents{size}"], positions=inputs[f"clean_latent{size}_indices"])
