from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from musubi.architecture import Roles
from musubi.architectures.wan.one_frame import OneFrame
from musubi.architectures.wan.spec import Wan
from musubi.architectures.wan.tasks import PUBLISHED
from musubi.core.errors import ConfigError
from musubi.noise.samplers import UniPC
from musubi.noise.timesteps import Shift

each_task = pytest.mark.parametrize("wan", [Wan(task=task) for task in PUBLISHED], ids=lambda wan: wan.task)


@each_task
def test_a_spec_survives_toml(wan: Wan) -> None:
    changed = wan.with_weights(vae="some/file.safetensors")

    assert Wan.from_toml(changed.to_toml()) == changed
    assert getattr(Wan, wan.task)() == wan


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 't2v_14b'"):
        Wan.from_dict({"kind": "wan", "task": "t2v_14B"})


def test_an_unknown_component_is_refused() -> None:
    with pytest.raises(ConfigError, match="no such component; did you mean 'dit'"):
        Wan.t2v_14b().with_weights(dti="x.safetensors")


@each_task
def test_every_component_has_a_published_home(wan: Wan) -> None:
    homes = wan.default_weights()

    transformers = [expert.component for expert in wan.experts]
    image = ["clip"] if wan.task in ("i2v_14b", "flf2v_14b", "i2v_14b_control") else []
    assert list(homes) == [*transformers, "vae", *image, "t5", "tokenizer"]
    assert all(ref.on_hub for ref in homes.values())
    assert len({ref.location for ref in homes.values()}) == len(homes)


@each_task
def test_adapters_go_where_the_reference_puts_them(wan: Wan) -> None:
    wanted = [f"blocks.3.{attention}.{name}" for attention in ("self_attn", "cross_attn") for name in "qkvo"]
    wanted += ["blocks.39.ffn.0", "blocks.0.ffn.2", "blocks.0.cross_attn.k_img", "blocks.0.cross_attn.v_img"]
    others = ["patch_embedding", "head.head", "time_projection.1", "blocks.0.self_attn.norm_q", "blocks.0.norm3"]

    assert all(_adapted(wan, name) for name in wanted)
    assert not any(_adapted(wan, name) for name in others)


@each_task
def test_defaults_are_those_of_the_model(wan: Wan) -> None:
    published, given = PUBLISHED[wan.task], wan.generation

    assert wan.timesteps == Shift(shift=published.training_shift)
    assert wan.sampler == UniPC(shift=published.shift)
    assert (given.size, given.frames, given.steps) == (published.size, published.frames, published.steps)
    assert given.fps == wan.geometry.fps
    assert given.negative.endswith("倒着走")
    assert wan.metadata["modelspec.architecture"] == "wan2.1/lora"
    assert wan.layout.count == published.num_layers
    assert not wan.geometry.size_issues(given.size)
    assert not wan.geometry.frame_issues(given.frames)


def test_a_small_clip_from_a_picture_has_a_grid_of_its_own() -> None:
    assert Wan.i2v_14b().sampler_for((480, 832)) == UniPC(shift=3.0)
    assert Wan.i2v_14b().sampler_for((832, 464)) == Wan.t2v_14b().sampler_for((480, 832)) == UniPC(shift=5.0)


@pytest.mark.parametrize(
    ("wan", "required", "optional", "stages", "seen"),
    [
        (Wan.t2v_14b(), (), ("video",), ("latents", "text"), ("video",)),
        (Wan.i2v_14b(), ("image",), ("last", "video"), ("latents", "clip", "text"), ("image", "video", "clip")),
        (Wan.i2v_a14b(), ("image",), ("last", "video"), ("latents", "text"), ("image", "video")),
        (Wan.t2v_14b_control(), ("control",), ("video",), ("latents", "text"), ("control", "video")),
        (
            Wan.i2v_14b_control(),
            ("image", "control"),
            ("last", "video"),
            ("latents", "clip", "text"),
            ("image", "control", "video", "clip"),
        ),
        (Wan.ti2v_5b(), (), ("image", "video"), ("latents", "text"), ("image", "video")),
        (
            Wan.flf2v_14b(one_frame=OneFrame(target=1)),
            ("control",),
            ("image", "last"),
            ("latents", "clip", "text"),
            ("control", "clip"),
        ),
        (Wan.i2v_a14b(one_frame=OneFrame(target=1)), ("control",), (), ("latents", "text"), ("control",)),
    ],
    ids=lambda value: getattr(value, "task", ""),
)
def test_a_task_says_what_it_is_shown(
    wan: Wan, required: tuple[str, ...], optional: tuple[str, ...], stages: tuple[str, ...], seen: tuple[str, ...]
) -> None:
    assert wan.request_roles == Roles(required=required, optional=optional)
    assert wan.roles.required == (("control",) if "control" in required else ())
    assert tuple(stage.name for stage in wan.stages) == stages
    assert tuple(stage.name for stage in wan.request_stages) == seen


def test_single_frames_have_their_place_in_time() -> None:
    placed = Wan.i2v_14b().at_positions(3, (0, 5))

    assert placed == Wan.i2v_14b(one_frame=OneFrame(target=3, controls=(0, 5)))
    assert placed.target_position == 3
    assert Wan.i2v_14b().target_position is None
    assert Wan.from_toml(placed.to_toml()) == placed


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Wan(task="t2v_14b", one_frame=OneFrame(target=1)), "one_frame: Wan 2.1 T2V 14B makes no single pict"),
        (lambda: Wan.i2v_14b_control().at_positions(1, (0,)), "Fun Control 14B, I2V has no places in time"),
        (lambda: Wan.i2v_14b().at_positions(1, (1,)), "1 is the position of a control picture"),
        (lambda: Wan(task="i2v_14b", from_picture=True), "from_picture: is for ti2v_5b, not for Wan 2.1 I2V 14B"),
    ],
)
def test_what_a_task_cannot_do_is_refused(make: Callable[[], Wan], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


def test_the_spec_loads_no_heavy_module() -> None:
    heavy = ("torch", "diffusers", "transformers", "av")
    program = (
        "import sys\n"
        "from musubi import Wan\n"
        "wan = Wan.t2v_14b().with_weights(dit='x.safetensors')\n"
        "wan.layout, wan.keys, wan.stages, wan.generation, wan.default_weights()\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def _adapted(wan: Wan, name: str) -> bool:
    layout = wan.layout
    wanted = any(re.fullmatch(pattern, name) for pattern in layout.adapters)
    return wanted and not any(re.fullmatch(pattern, name) for pattern in layout.keep)
