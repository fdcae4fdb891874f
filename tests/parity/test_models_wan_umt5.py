"""The text encoder gives the reference's embeddings, from checkpoints in the original layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from musubi.architectures.wan.text import TextEncoder, load_umt5
from musubi.testing.checkpoints import tiny_tokenizer
from tests.parity.cases import golden, golden_stems, part

STEMS = golden_stems("models_wan_umt5")


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_models_wan_umt5_embeddings_equal_the_reference(stem: str, prefix: str, tmp_path: Path) -> None:
    _, tensors = golden(stem)
    torch.save({prefix + name: tensor for name, tensor in part(tensors, "ckpt.").items()}, tmp_path / "t5.pth")
    umt5 = load_umt5(tmp_path / "t5.pth", device=torch.device("cpu"), dtype=torch.float32)

    embeddings = TextEncoder(umt5, tiny_tokenizer()).embed(tensors["in.ids"], tensors["in.mask"])

    for index, found in enumerate(embeddings):
        expected = tensors[f"out.context_{index}"]
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= 1e-5
