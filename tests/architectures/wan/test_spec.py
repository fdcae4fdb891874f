from __future__ import annotations

import re
import subprocess
import sys

import pytest

from musubi.architectures.wan.spec import PUBLISHED, Wan
from musubi.core.errors import ConfigError
from musubi.noise.samplers import UniPC
from musubi.noise.timesteps import Shift

each_task = pytest.mark.parametrize("wan", [Wan.t2v_1_3b(), Wan.t2v_14b()], ids=lambda wan: wan.task)


@each_task
def test_a_spec_survives_toml(wan: Wan) -> None:
    changed = wan.with_weights(dit="some/file.safetensors")

    assert Wan.from_toml(changed.to_toml()) == changed


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 't2v_14b'"):
        Wan.from_dict({"kind": "wan", "task": "t2v_14B"})


def test_an_unknown_component_is_refused() -> None:
    with pytest.raises(ConfigError, match="no such component; did you mean 'dit'"):
        Wan.t2v_14b().with_weights(dti="x.safetensors")


@each_task
def test_every_component_has_a_published_home(wan: Wan) -> None:
    homes = wan.default_weights()

    assert list(homes) == ["dit", "vae", "t5", "tokenizer"]
    assert all(ref.on_hub for ref in homes.values())


@each_task
def test_adapters_go_where_the_reference_puts_them(wan: Wan) -> None:
    wanted = [f"blocks.3.{attention}.{name}" for attention in ("self_attn", "cross_attn") for name in "qkvo"]
    wanted += ["blocks.39.ffn.0", "blocks.0.ffn.2", "blocks.0.cross_attn.k_img", "blocks.0.cross_attn.v_img"]
    others = ["patch_embedding", "head.head", "time_projection.1", "blocks.0.self_attn.norm_q", "blocks.0.norm3"]

    assert all(_adapted(wan, name) for name in wanted)
    assert not any(_adapted(wan, name) for name in others)


@each_task
def test_defaults_are_those_of_the_model(wan: Wan) -> None:
    assert wan.timesteps == Shift(shift=3.0)
    assert wan.sampler == UniPC(shift=5.0)
    assert (wan.generation.size, wan.generation.frames, wan.generation.steps) == ((832, 480), 81, 50)
    assert wan.generation.negative.startswith("色调艳丽")
    assert wan.generation.negative.endswith("倒着走")
    assert wan.metadata["modelspec.architecture"] == "wan2.1/lora"
    assert wan.layout.count == PUBLISHED[wan.task].num_layers
    assert not wan.geometry.size_issues(wan.generation.size)
    assert not wan.geometry.frame_issues(wan.generation.frames)


def test_the_spec_loads_no_heavy_module_and_is_quick() -> None:
    heavy = ("torch", "diffusers", "transformers", "av")
    program = (
        "import sys, time\n"
        "start = time.process_time()\n"
        "from musubi import Wan\n"
        "wan = Wan.t2v_14b().with_weights(dit='x.safetensors')\n"
        "wan.layout, wan.keys, wan.stages, wan.generation, wan.default_weights()\n"
        "print(time.process_time() - start)\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    seconds, loaded = done.stdout.splitlines()

    assert loaded == "[]"
    assert float(seconds) < 0.3


def _adapted(wan: Wan, name: str) -> bool:
    layout = wan.layout
    wanted = any(re.fullmatch(pattern, name) for pattern in layout.adapters)
    return wanted and not any(re.fullmatch(pattern, name) for pattern in layout.keep)
