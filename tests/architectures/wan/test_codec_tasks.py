"""What the codec makes for each task, of training items and of what a generation is asked to show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from musubi.architecture import Asked, Stage
from musubi.architectures.wan.codec import WanCodec
from musubi.architectures.wan.one_frame import OneFrame
from musubi.architectures.wan.spec import Wan
from musubi.architectures.wan.tasks import Task
from musubi.batch import Sample
from musubi.core.errors import WeightsError
from musubi.testing.checkpoints import tiny_wan

CPU = torch.device("cpu")
FRAMES = 5

MADE: Mapping[str, tuple[str, ...]] = {
    "t2v_14b": (),
    "t2i_14b": (),
    "i2v_14b": ("latents_image", "clip"),
    "flf2v_14b": ("latents_image", "clip"),
    "t2v_1_3b_control": ("latents_control",),
    "i2v_14b_control": ("latents_image", "latents_control", "clip"),
    "t2v_a14b": (),
    "i2v_a14b": ("latents_image",),
    "ti2v_5b": (),
}
"""What lies beside latents and text in a cache, by task."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tasks")


def tiny(folder: Path, task: str) -> Wan:
    """Return a task's tiny files, written once."""
    return tiny_wan(folder / task, task=cast(Task, task))


def loaded(codec: WanCodec, stages: tuple[Stage, ...]) -> dict[str, nn.Module]:
    names = dict.fromkeys(name for stage in stages for name in stage.components)
    return {name: codec.load(name, device=CPU, dtype=torch.float32) for name in names}


def clip(wan: Wan, seed: int, *, frames: int = FRAMES, scale: int = 1) -> Tensor:
    side = wan.geometry.multiple
    shape = (frames, 2 * side * scale, 3 * side * scale, 3)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def cached(wan: Wan, sample: Sample) -> dict[str, Tensor]:
    codec, models = wan.codec(), loaded(wan.codec(), wan.stages)
    made: dict[str, Tensor] = {}
    for stage in wan.stages:
        made |= codec.encode(stage, models, [sample])[0].tensors
    return made


def shown(wan: Wan, media: Mapping[str, tuple[Tensor, ...]], *, frames: int = FRAMES) -> dict[str, Tensor]:
    codec, models = wan.codec(), loaded(wan.codec(), wan.request_stages)
    side = wan.geometry.multiple
    asked = Asked(media=media, size=(3 * side, 2 * side), frames=frames)
    made: dict[str, Tensor] = {}
    for stage in wan.request_stages:
        made |= codec.ask(stage, models, asked)
    return made


@pytest.mark.parametrize("task", MADE)
def test_a_cache_holds_what_the_task_looks_at(task: str, folder: Path) -> None:
    wan = tiny(folder, task)
    frames = 1 if task == "t2i_14b" else FRAMES
    pixels = clip(wan, 0, frames=frames)
    controls = {"control": (clip(wan, 1, frames=frames),)} if "latents_control" in MADE[task] else {}

    made = cached(wan, Sample(name="a", caption="a cat", pixels=pixels, controls=controls))

    assert made.keys() == {"latents", "varlen_t5", *MADE[task]}
    side = wan.geometry.multiple
    shape = wan.geometry.latent_shape((3 * side, 2 * side), frames)
    assert tuple(made["latents"].shape) == shape
    lengths = {"latents_image": 20, "latents_control": 16}
    for name in lengths.keys() & made.keys():
        assert tuple(made[name].shape) == (lengths[name], *shape[1:])
    if "clip" in made:
        assert made["clip"].shape == ((34 if task == "flf2v_14b" else 17), 80)


@pytest.mark.parametrize("task", [task for task, made in MADE.items() if made])
def test_a_generation_shows_what_an_item_of_the_same_frames_would(task: str, folder: Path) -> None:
    wan = tiny(folder, task)
    pixels, control = clip(wan, 0), clip(wan, 1)
    media = {"image": (pixels[:1],), "last": (pixels[-1:],), "control": (control,)}
    roles = wan.request_roles
    given = {role: media[role] for role in (*roles.required, *(["last"] if task == "flf2v_14b" else []))}

    made = shown(wan, given)

    expected = cached(wan, Sample(name="a", pixels=pixels, controls={"control": (control,)}))
    assert made.keys() == set(MADE[task])
    for name, tensor in made.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-5)


def test_the_small_model_of_wan_22_starts_from_a_latent_frame(folder: Path) -> None:
    wan = tiny(folder, "ti2v_5b")
    picture = clip(wan, 0, frames=1, scale=2)

    made = shown(wan, {"image": (picture,)})

    assert {name: tuple(tensor.shape) for name, tensor in made.items()} == {"latents_image": (48, 1, 4, 6)}
    assert shown(wan, {}) == {}


@pytest.mark.parametrize("task", ["i2v_14b", "flf2v_14b", "i2v_a14b"])
def test_single_frames_are_cached_with_their_positions(task: str, folder: Path) -> None:
    wan = tiny(folder, task).replace(one_frame=OneFrame(target=1, controls=(2, 0)))
    pictures = tuple(clip(wan, seed, frames=1) for seed in (1, 2))

    made = cached(wan, Sample(name="a", pixels=clip(wan, 0, frames=1), controls={"control": pictures}))
    asked = shown(wan, {"control": pictures}, frames=1)

    assert made["latents"].shape[1] == made["latents_image"].shape[1] == 3
    assert made["f_indices"].tolist() == [0, 1, 2]
    assert asked.keys() == made.keys() - {"latents", "varlen_t5"}
    for name, tensor in asked.items():
        torch.testing.assert_close(tensor, made[name], rtol=0, atol=1e-5)


def test_a_clip_to_change_becomes_latents(folder: Path) -> None:
    wan = tiny(folder, "t2v_14b")
    pixels = clip(wan, 0)

    made = shown(wan, {"video": (pixels,)})

    torch.testing.assert_close(made["latents"], cached(wan, Sample(name="a", pixels=pixels))["latents"])


@pytest.mark.parametrize(("task", "other"), [("t2v_14b", "ti2v_5b"), ("ti2v_5b", "t2v_14b")])
def test_the_vae_of_another_wan_is_refused(task: str, other: str, folder: Path) -> None:
    wan = tiny(folder, task).with_weights(vae=tiny(folder, other).weight("vae"))

    with pytest.raises(WeightsError, match=r"is a Wan 2\.\d VAE"):
        wan.codec().identity("vae")


def test_clip_runs_in_float16_where_the_others_run_in_bfloat16(folder: Path) -> None:
    codec = tiny(folder, "i2v_14b").codec()

    dtypes = {
        name: next(codec.load(name, device=CPU, dtype=torch.bfloat16).parameters()).dtype for name in ("vae", "clip")
    }

    assert dtypes == {"vae": torch.bfloat16, "clip": torch.float16}


def test_clip_has_an_identity_of_its_own(folder: Path) -> None:
    codec = tiny(folder, "i2v_14b").codec()

    assert codec.identity("clip").startswith("clip-")
    assert len({codec.identity(name) for name in ("clip", "vae", "t5")}) == 3


def test_a_stage_that_is_unknown_shows_nothing(folder: Path) -> None:
    codec = tiny(folder, "t2v_14b").codec()
    stage = Stage(name="other", components=(), reads=())

    assert codec.ask(stage, {}, Asked(media={}, size=(32, 32), frames=1)) == {}
