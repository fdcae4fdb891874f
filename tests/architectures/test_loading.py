"""What holds for loading a transformer of any family."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.architectures.families import FAMILIES, Family

each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


@each_family
def test_the_model_is_frozen_and_evaluating_and_the_callers_random_numbers_are_left_alone(
    family: Family, tmp_path: Path
) -> None:
    path, before = family.write(family.stem, tmp_path), torch.get_rng_state()

    model = family.load(path, exact=False)

    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


@each_family
def test_structure_is_changed_before_there_are_weights(family: Family, tmp_path: Path) -> None:
    prepared: list[bool] = []

    def prepare(model: nn.Module) -> None:
        prepared.extend(p.is_meta for p in model.parameters())

    family.load(family.write(family.stem, tmp_path), prepare=prepare)

    assert prepared
    assert all(prepared)


@each_family
def test_a_hook_sees_every_tensor_of_the_file_under_its_original_name(family: Family, tmp_path: Path) -> None:
    seen: dict[str, Tensor] = {}

    def watch(name: str, tensor: Tensor) -> Tensor:
        seen[name] = tensor.clone()
        return tensor

    family.load(family.write(family.stem, tmp_path), on_weight=watch)

    wanted = family.checkpoint()
    assert seen.keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in seen.items())


@each_family
@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model.", "model.model."])
def test_prefixes_of_other_programs_make_no_difference(family: Family, prefix: str, tmp_path: Path) -> None:
    bare = family.load(family.write(family.stem, tmp_path))

    prefixed = family.load(family.write(family.stem, tmp_path, prefix=prefix)).state_dict()

    assert all(torch.equal(tensor, prefixed[name]) for name, tensor in bare.state_dict().items())
