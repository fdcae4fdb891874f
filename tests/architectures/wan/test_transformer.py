"""Places in time, pictures beside the text, and a time for every token, in diffusers' transformer as ours has it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor, nn

from musubi.architectures.wan.attention import PaddedText
from musubi.architectures.wan.spec import Wan
from musubi.architectures.wan.tasks import Task
from musubi.architectures.wan.transformer import PlacedRope, places_in_time
from musubi.testing.checkpoints import tiny_wan

CPU = torch.device("cpu")


def load(folder: Path, task: Task) -> tuple[Wan, WanTransformer3DModel]:
    wan = tiny_wan(folder / task, task=task)
    return wan, wan.denoiser().load(wan.experts[0], device=CPU, dtype=torch.float32)


def rope() -> PlacedRope:
    return PlacedRope(32, (1, 2, 2), 1024)


def tables(frames: int, places: Tensor | None = None) -> tuple[Tensor, Tensor]:
    with places_in_time(places):
        return cast(tuple[Tensor, Tensor], rope()(torch.zeros(2, 16, frames, 4, 6)))


def test_frames_in_a_row_are_where_they_would_be_anyway() -> None:
    usual, placed = tables(3), tables(3, torch.arange(3))

    assert all(torch.equal(one, other) for one, other in zip(usual, placed, strict=True))


def test_each_item_has_its_own_places() -> None:
    both = tables(2, torch.tensor([[0, 7], [3, 1]], dtype=torch.int32))
    row = tables(8)

    for whole, placed in zip(row, both, strict=True):
        by_frame = whole.unflatten(1, (8, 6))
        assert torch.equal(placed[0].unflatten(0, (2, 6)), by_frame[0, [0, 7]])
        assert torch.equal(placed[1].unflatten(0, (2, 6)), by_frame[0, [3, 1]])


def test_places_are_those_of_the_innermost_with_and_of_its_thread() -> None:
    far, near = torch.tensor([5, 6]), torch.tensor([1, 2])

    with places_in_time(far):
        inside = tables(2, near)
        afterwards = rope()(torch.zeros(1, 16, 2, 4, 6))
        with ThreadPoolExecutor(1) as threads:
            elsewhere = threads.submit(lambda: rope()(torch.zeros(1, 16, 2, 4, 6))).result()

    assert torch.equal(inside[0], tables(2, near)[0])
    assert torch.equal(afterwards[0], tables(2, far)[0])
    assert torch.equal(elsewhere[0], tables(2)[0])


@pytest.mark.parametrize(("task", "pictures"), [("i2v_14b", 1), ("flf2v_14b", 2)])
def test_a_picture_travels_beside_the_text(task: Task, pictures: int, tmp_path: Path) -> None:
    _, model = load(tmp_path, task)
    clip = torch.randn(2 * pictures, 17, 80, generator=torch.Generator().manual_seed(0))

    _, _, told, none = model.condition_embedder(torch.tensor([1.0, 2.0]), torch.zeros(2, 4, 32), clip)

    assert isinstance(told, PaddedText)
    assert told.image is not None
    assert told.image.shape == (2, 17 * pictures, 64)
    assert none is None


def test_without_a_picture_the_layers_for_images_play_no_part(tmp_path: Path) -> None:
    _, model = load(tmp_path, "t2v_14b_control")
    x, text = torch.randn(1, 48, 2, 4, 4), torch.randn(1, 5, 32)
    before = model(x, torch.tensor([500.0]), text, return_dict=False)[0]

    with torch.no_grad():
        for block in model.blocks:
            nn.init.normal_(block.get_parameter("attn2.add_k_proj.weight"))
            nn.init.normal_(block.get_parameter("attn2.add_v_proj.weight"))

    assert torch.equal(model(x, torch.tensor([500.0]), text, return_dict=False)[0], before)


def test_one_time_for_all_tokens_is_that_time_for_each(tmp_path: Path) -> None:
    _, model = load(tmp_path, "ti2v_5b")
    x, text = torch.randn(2, 48, 2, 4, 4), torch.randn(2, 5, 32)
    times = torch.tensor([300.0, 900.0])

    together = model(x, times, text, return_dict=False)[0]
    each = model(x, times[:, None].expand(2, 8), text, return_dict=False)[0]

    assert (together - each).abs().max() <= 1e-5
