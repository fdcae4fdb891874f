"""The tiny image models are what they say, in both layouts, and the same from the same seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from musubi.architecture import Architecture
from musubi.testing.flux_kontext import tiny_flux_kontext
from musubi.testing.qwen_image import tiny_qwen_image

Maker = Callable[..., Architecture]
each_maker = pytest.mark.parametrize("maker", [tiny_flux_kontext, tiny_qwen_image])


def loaded(model: Architecture) -> nn.Module:
    return model.denoiser().load(model.experts[0], device=torch.device("cpu"), dtype=torch.float32)


@each_maker
def test_both_layouts_hold_the_same_numbers_from_the_same_seed(maker: Maker, tmp_path: Path) -> None:
    single, folder = (loaded(maker(tmp_path / layout, layout=layout)) for layout in ("original", "diffusers"))
    other = loaded(maker(tmp_path / "other", seed=1))

    theirs = dict(folder.named_parameters())
    assert all(torch.equal(value, theirs[name]) for name, value in single.named_parameters())
    assert not any(torch.equal(value, theirs[name]) for name, value in other.named_parameters() if value.ndim > 1)


@each_maker
def test_no_random_state_is_touched(maker: Maker, tmp_path: Path) -> None:
    before = torch.get_rng_state()

    maker(tmp_path)

    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("maker", "options", "blocks"),
    [(tiny_flux_kontext, {"dim": 96, "num_double": 1, "num_single": 3}, 4), (tiny_qwen_image, {"num_layers": 3}, 3)],
)
def test_its_size_is_what_is_asked_for(maker: Maker, options: dict[str, Any], blocks: int, tmp_path: Path) -> None:
    model = maker(tmp_path, **options)

    network = loaded(model)

    assert sum(len([*network.get_submodule(name).children()]) for name in model.layout.blocks) == blocks


def test_only_edit_2511_is_marked(tmp_path: Path) -> None:
    for task in ("edit_2509", "edit_2511"):
        model = tiny_qwen_image(tmp_path / task, task=task)

        names = load_file(model.weight("dit").resolve())

        assert ("__index_timestep_zero__" in names) == (task == "edit_2511")
