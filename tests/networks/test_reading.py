from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from musubi.core.errors import WeightsError
from musubi.networks.reading import modules_in, read_safetensors
from tests.networks.weighted import KINDS, weights_of

SPELLINGS = {
    "kohya": "lora_unet_blocks_0_q.{}",
    "comfy": "diffusion_model.blocks.0.q.{}",
    "lycoris": "lycoris_blocks_0_q.{}",
    "bare": "blocks.0.q.{}",
}
LEAVES = {"down": "lora_down.weight", "up": "lora_up.weight"}


def _tensors(kind: str, pattern: str = "m.{}") -> dict[str, Tensor]:
    return {pattern.format(LEAVES.get(role, role)): tensor for role, tensor in weights_of(kind).tensors().items()}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_understood_in_every_spelling(kind: str, spelling: str) -> None:
    expected = weights_of(kind)

    ((name, found),) = modules_in(_tensors(kind, SPELLINGS[spelling]), {}, where="file").items()

    assert name.replace(".", "_") == "blocks_0_q"
    assert type(found) is type(expected)
    assert found.kind == expected.kind
    torch.testing.assert_close(found.delta(), expected.delta())


def test_pefts_magnitudes_make_a_dora() -> None:
    weights = weights_of("dora")
    names = {"down": "lora_A.weight", "up": "lora_B.weight", "dora_scale": "lora_magnitude_vector"}
    tensors = {f"transformer.m.{names[role]}": tensor for role, tensor in weights.tensors().items() if role != "alpha"}

    found = modules_in(tensors, {}, where="file")["m"]

    assert (found.kind, found.strength) == ("dora", 1.0)


def test_a_file_may_mix_kinds_and_ranks() -> None:
    tensors = _tensors("lora", "a.{}") | _tensors("loha", "b.{}") | _tensors("lokr", "c.{}")
    tensors["d.lora_down.weight"], tensors["d.lora_up.weight"] = torch.ones(5, 8), torch.ones(6, 5)

    found = modules_in(tensors, {}, where="file")

    assert [(name, weights.kind, weights.rank) for name, weights in found.items()] == [
        ("a", "lora", 2),
        ("b", "loha", 2),
        ("c", "lokr", 1),
        ("d", "lora", 5),
    ]


def test_a_lokrs_factors_are_those_of_its_shapes() -> None:
    tensors = {"m.lokr_w1": torch.ones(2, 4), "m.lokr_w2": torch.ones(30, 5), "m.alpha": torch.tensor(0.001)}

    found = modules_in(tensors, {}, where="file")["m"]

    assert (found.shape, found.strength) == ((60, 20), 1.0)


@pytest.mark.parametrize("role", ["diff", "diff_b"])
def test_whole_differences_are_refused_plainly(role: str) -> None:
    with pytest.raises(WeightsError, match=r"is a whole difference of weights.*merge it into the base model"):
        modules_in({f"diffusion_model.blocks.0.q.{role}": torch.ones(4, 4)}, {}, where="file")


@pytest.mark.parametrize(
    ("kind", "role", "missing"),
    [
        ("lora", "lora_up.weight", "up"),
        ("dora", "lora_down.weight", "down"),
        ("loha", "hada_w2_b", "hada_w2_b"),
        ("lokr", "lokr_w2_b", "lokr_w2"),
        ("lokr_whole", "lokr_w1", "lokr_w1"),
    ],
)
def test_a_module_without_one_of_its_matrices_is_named(kind: str, role: str, missing: str) -> None:
    tensors = _tensors(kind)
    del tensors[f"m.{role}"]

    with pytest.raises(WeightsError, match=f"m lacks its {missing} matrix"):
        modules_in(tensors, {}, where="file")


@pytest.mark.parametrize(
    ("kind", "role"), [("lora", "lora_up.weight"), ("dora", "dora_scale"), ("loha", "hada_w1_a"), ("lokr", "lokr_w2_a")]
)
def test_matrices_that_do_not_fit_together_are_named(kind: str, role: str) -> None:
    tensors = _tensors(kind)
    tensors[f"m.{role}"] = torch.ones(3, 7)

    with pytest.raises(WeightsError, match=r"the matrices of m do not fit together"):
        modules_in(tensors, {}, where="file")


def test_a_files_tensors_and_metadata_are_read(tmp_path: Path) -> None:
    save_file(_tensors("lora"), tmp_path / "a.safetensors", {"title": "clay"})

    tensors, metadata = read_safetensors(tmp_path / "a.safetensors")

    assert tensors.keys() == _tensors("lora").keys()
    assert metadata == {"title": "clay"}
