"""T5 gives the reference's states for the same tokens, padding included, from a file in ComfyUI's names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from musubi.architectures.flux_kontext.t5 import T5, load_t5_encoder
from musubi.testing.checkpoints import tiny_tokenizer
from tests.parity.cases import golden, golden_stems, part

each_case = pytest.mark.parametrize("stem", golden_stems("models_t5_xxl"))


@each_case
def test_models_t5_xxl_states_equal_the_reference(stem: str, tmp_path: Path) -> None:
    _, tensors = golden(stem)

    states = _states(part(tensors, "ckpt."), tensors["in.input_ids"], tmp_path)

    assert (states - tensors["out.last_hidden_state_no_mask"]).abs().max() <= 2e-5


@each_case
@pytest.mark.parametrize("missing", ["shared.weight", "encoder.embed_tokens.weight"])
def test_models_t5_xxl_may_have_its_embedding_under_either_name(stem: str, missing: str, tmp_path: Path) -> None:
    _, tensors = golden(stem)
    checkpoint = {name: tensor for name, tensor in part(tensors, "ckpt.").items() if name != missing}

    states = _states(checkpoint, tensors["in.input_ids"], tmp_path)

    assert (states - tensors["out.last_hidden_state_no_mask"]).abs().max() <= 2e-5


def _states(checkpoint: dict[str, Tensor], ids: Tensor, folder: Path) -> Tensor:
    save_file(checkpoint, folder / "t5.safetensors")
    encoder = load_t5_encoder(folder / "t5.safetensors", device=torch.device("cpu"), dtype=torch.float32)
    return T5(encoder, tiny_tokenizer()).embed(ids)
