"""CLIP-L gives the vector that its authors' activation gives.

The reference computes it with another activation (its config says two, of which the second wins): ours must not.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from musubi.architectures.flux_kontext.clip import ClipL, load_clip_encoder
from musubi.testing.flux_kontext import tiny_clip_tokenizer
from tests.parity.cases import golden, golden_stems, part


@pytest.mark.parametrize("stem", golden_stems("models_clip_l"))
def test_models_clip_l_vector_has_the_quick_activation(stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)
    path = tmp_path / "clip_l.safetensors"
    heads = {"clip_l.num_heads": str(meta["config"]["num_attention_heads"])}
    save_file(part(tensors, "ckpt."), path, metadata=heads)

    encoder = load_clip_encoder(path, device=torch.device("cpu"), dtype=torch.float32)
    pooled = ClipL(encoder, tiny_clip_tokenizer()).embed(tensors["in.input_ids"])

    assert (pooled - tensors["out.pooler_output_quick_gelu"]).abs().max() <= 2e-5
    assert (pooled - tensors["out.pooler_output_gelu"]).abs().max() > 2e-5
