"""What each task's transformer is shown beside noise and text, of cached items and of generations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from musubi.architectures.wan.denoiser import WanConditions, WanDenoiser
from musubi.architectures.wan.one_frame import OneFrame
from musubi.architectures.wan.spec import Wan
from musubi.architectures.wan.tasks import PUBLISHED, Task
from musubi.batch import Batch, collate
from musubi.core.errors import CacheError
from musubi.testing.checkpoints import tiny_wan

CPU = torch.device("cpu")
CELLS = (2, 4, 6)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def entry(wan: Wan) -> dict[str, Tensor]:
    """Return an item with everything that a cache of the task holds."""
    sight, channels = wan.sight, wan.geometry.channels
    made = {"latents": drawn(channels, *CELLS), "varlen_t5": drawn(3, 32)}
    if sight.image:
        made["latents_image"] = drawn(channels + 4, *CELLS, seed=1)
    if sight.control:
        made["latents_control"] = drawn(channels, *CELLS, seed=2)
    if sight.clip:
        made["clip"] = drawn(34 if sight.last else 17, 80, seed=3)
    if sight.one_frame is not None:
        made["f_indices"] = torch.tensor(sight.one_frame.positions, dtype=torch.int32)
    return made


def batch(entries: list[Mapping[str, Tensor]]) -> Batch:
    return collate(entries, items=[str(number) for number in range(len(entries))], bucket="test")


def without(made: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {other: tensor for other, tensor in made.items() if other != name}


@pytest.mark.parametrize("task", PUBLISHED)
def test_everything_a_task_is_shown_moves_its_velocity(task: Task, tmp_path: Path) -> None:
    wan = tiny_wan(tmp_path, task=task)
    denoiser = wan.denoiser()
    model = denoiser.load(wan.experts[0], device=CPU, dtype=torch.float32)
    made, x, sigma = entry(wan), drawn(2, wan.geometry.channels, *CELLS, seed=9), torch.tensor([0.4, 0.9])

    usual = denoiser.velocity(model, x, sigma, denoiser.conditions(batch([made, made])))

    assert usual.shape == x.shape
    for name in made.keys() - {"latents"}:
        changed = {**made, name: made[name] + drawn(*made[name].shape, seed=7)}
        other = denoiser.velocity(model, x, sigma, denoiser.conditions(batch([made, changed])))
        assert (other[0] - usual[0]).abs().max() <= 1e-5, name
        assert (other[1] - usual[1]).abs().max() > 1e-3, name


@pytest.mark.parametrize("task", [task for task in PUBLISHED if len(entry(Wan(task=task))) > 2])
def test_a_cache_of_another_task_is_refused_by_the_name_of_what_it_lacks(task: Task) -> None:
    made = entry(Wan(task=task))

    for name in made.keys() - {"latents", "varlen_t5"}:
        with pytest.raises(CacheError, match=f"{name}: only .* is there"):
            WanDenoiser(Wan(task=task)).conditions(batch([without(made, name)]))


def test_fun_control_sees_the_clip_first_and_of_the_picture_the_first_frame_alone() -> None:
    made = entry(Wan.i2v_14b_control())

    shown = WanDenoiser(Wan.i2v_14b_control()).conditions(batch([made])).beside
    clip_alone = WanDenoiser(Wan.t2v_14b_control()).conditions(batch([without(made, "latents_image")])).beside

    assert shown is not None
    assert clip_alone is not None
    assert torch.equal(shown[0, :16], made["latents_control"])
    assert torch.equal(shown[0, 16:, 0], made["latents_image"][4:, 0])
    assert not shown[0, 16:, 1:].any()
    assert torch.equal(clip_alone[0], torch.cat([made["latents_control"], torch.zeros(16, *CELLS)]))


def test_single_frames_are_where_the_cache_says() -> None:
    wan = Wan.i2v_14b(one_frame=OneFrame(target=5))

    assert WanDenoiser(wan).conditions(batch([entry(wan)] * 2)).places.tolist() == [[0, 5]] * 2  # type: ignore[union-attr]


@pytest.mark.parametrize("pictures", [1, 2])
def test_features_by_picture_as_musubi_tuner_caches_them_are_taken(pictures: int) -> None:
    one, two = (make(one_frame=OneFrame(target=1)) for make in (Wan.i2v_14b, Wan.flf2v_14b))
    by_picture = drawn(pictures, 17, 80)
    made = {**entry(one), "clip": by_picture}

    first = WanDenoiser(one).conditions(batch([made] * 2)).clip
    both = WanDenoiser(two).conditions(batch([made] * 2)).clip

    assert first is not None
    assert both is not None
    assert torch.equal(first[1], by_picture[0])
    assert torch.equal(both[1], torch.cat([by_picture[0], by_picture[-1]]))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Wan:
    return tiny_wan(tmp_path_factory.mktemp("5b"), task="ti2v_5b")


def test_a_given_first_frame_is_shown_clean_and_reached_in_a_straight_line(small: Wan) -> None:
    denoiser = small.denoiser()
    model = denoiser.load(small.experts[0], device=CPU, dtype=torch.float32)
    text, clean, noise = drawn(1, 4, 32), drawn(1, 48, *CELLS), drawn(1, 48, *CELLS, seed=1)
    sigma, first = torch.tensor([0.7]), clean[:, :, :1]
    x = 0.3 * clean + 0.7 * noise

    given = denoiser.velocity(model, x, sigma, WanConditions(text=text, first=first))
    other = torch.cat([drawn(1, 48, 1, *CELLS[1:], seed=2), x[:, :, 1:]], dim=2)
    elsewhere = denoiser.velocity(model, other, sigma, WanConditions(text=text, first=first))

    assert (given[:, :, :1] - (noise - clean)[:, :, :1]).abs().max() <= 1e-5
    assert torch.equal(given[:, :, 1:], elsewhere[:, :, 1:])
    assert (given - denoiser.velocity(model, x, sigma, WanConditions(text=text))).abs().max() > 1e-2
    assert torch.equal(denoiser.complete(other, WanConditions(text=text, first=first))[:, :, :1], first)


def test_in_training_the_first_frame_is_the_items_own_where_that_was_asked_for(small: Wan) -> None:
    made = entry(small)
    pictured = batch([{**made, "latents_image": drawn(48, 1, *CELLS[1:], seed=4)}])

    plain, shown = (wan.denoiser().conditions(batch([made])) for wan in (small, small.replace(from_picture=True)))

    assert plain.first is None
    assert shown.first is not None
    assert torch.equal(shown.first[0], made["latents"][:, :1])
    assert torch.equal(small.denoiser().conditions(pictured).first, pictured["latents_image"])  # type: ignore[arg-type]
