from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from musubi.core.errors import WeightsError
from musubi.training.checkpoints import LinearWeights
from musubi.weights.checkpoint import open_checkpoint
from tests.training.small_checkpoints import LAYOUTS, SPEC, Names, original, small, write


@pytest.mark.parametrize("names", LAYOUTS)
def test_weights_have_original_names_and_rows_in_every_layout(names: Names, tmp_path: Path) -> None:
    base = small()

    with open_checkpoint(write(base, tmp_path, names)) as checkpoint:
        weights = LinearWeights.of(checkpoint, SPEC)
        found = {name: weights.read(name).clone() for name in weights.pieces}

    assert list(found) == list(SPEC.linears())
    for name, tensor in original(base).items():
        if name.endswith(".weight") and name.removesuffix(".weight") in found:
            assert torch.equal(found[name.removesuffix(".weight")], tensor), name


@pytest.mark.parametrize("names", LAYOUTS)
def test_the_files_own_tensors_come_back_bit_by_bit(names: Names, tmp_path: Path) -> None:
    with open_checkpoint(write(small(), tmp_path, names)) as checkpoint:
        weights = LinearWeights.of(checkpoint, SPEC)

        for name in weights.pieces:
            for source, tensor in weights.parts(name, weights.read(name)).items():
                assert torch.equal(tensor, checkpoint.read(source)), source


def test_a_file_without_any_of_them_is_refused(tmp_path: Path) -> None:
    save_file({"other.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")

    refused = pytest.raises(WeightsError, match="has no weight of")
    with open_checkpoint(tmp_path / "other.safetensors") as checkpoint, refused:
        LinearWeights.of(checkpoint, SPEC)
