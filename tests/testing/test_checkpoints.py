from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from musubi.architecture import Expert
from musubi.testing.checkpoints import WanFiles, tiny_tokenizer, tiny_wan

LAYOUTS: tuple[WanFiles, ...] = ("original", "original_pth", "diffusers")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_spec_points_into_the_folder_and_loads(layout: WanFiles, tmp_path: Path) -> None:
    wan = tiny_wan(tmp_path / "new" / "folder", layout=layout)

    places = [wan.weight(name).resolve() for name in wan.default_weights()]
    model = wan.denoiser().load(Expert(), device=torch.device("cpu"), dtype=torch.float32)

    assert all(place.is_relative_to(tmp_path) for place in places)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(("dim", "layers"), [(64, 1), (96, 2), (128, 3)])
def test_sizes_are_as_asked_in_original_names(dim: int, layers: int, tmp_path: Path) -> None:
    tiny_wan(tmp_path, dim=dim, num_layers=layers)

    tensors = load_file(tmp_path / "dit.safetensors")

    assert tensors["patch_embedding.weight"].shape[0] == dim
    assert f"blocks.{layers - 1}.ffn.0.weight" in tensors
    assert f"blocks.{layers}.ffn.0.weight" not in tensors


def test_the_seed_decides_the_weights(tmp_path: Path) -> None:
    names = {"a": 0, "b": 0, "c": 1}
    first, again, other = (
        load_file(tiny_wan(tmp_path / name, seed=seed).weight("dit").resolve()) for name, seed in names.items()
    )

    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_the_global_random_state_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)

    tiny_wan(tmp_path)

    assert torch.equal(torch.rand(1), expected)


def test_it_is_quick_and_small(tmp_path: Path) -> None:
    tiny_wan(tmp_path / "warm")
    start = time.process_time()

    tiny_wan(tmp_path / "timed")

    assert time.process_time() - start < 1
    assert sum(path.stat().st_size for path in (tmp_path / "timed").rglob("*") if path.is_file()) < 3e6


def test_the_tokenizer_spells_and_ends() -> None:
    tokenizer = tiny_tokenizer()

    ids = tokenizer("a cat").input_ids

    assert len(ids) == len(" a cat") + 1
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.pad_token_id == 0
