from __future__ import annotations

import re
from typing import get_args

import pytest
import torch

from musubi import HunyuanVideo, LoRAFile
from musubi.architectures.hunyuan_video.spec import PUBLISHED, Task
from musubi.core.errors import ConfigError, MusubiError
from musubi.memory.quantise import quantises
from musubi.networks.weights import LoRAWeights
from musubi.noise.samplers import Euler
from musubi.noise.timesteps import Shift
from tests.parity.cases import vector

SPEC = HunyuanVideo.t2v()
TASKS = get_args(Task)


def _matching(patterns: tuple[str, ...]) -> list[str]:
    return [name for name in SPEC.linears() if any(re.fullmatch(pattern, name) for pattern in patterns)]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_a_constructor_of_its_name_and_is_published(task: Task) -> None:
    assert getattr(HunyuanVideo, task)() == HunyuanVideo(task=task)
    assert HunyuanVideo(task=task).published == PUBLISHED[task]


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"task: must be one of .*did you mean 'skyreels_i2v'\?"):
        HunyuanVideo(task="skyreel_i2v")  # type: ignore[arg-type]


def test_the_default_targets_are_the_reference_s_240() -> None:
    sizes = SPEC.linears()

    names = _matching(SPEC.layout.adapters)

    # spec/training.md 3.2: the reference's own count at rank 32
    assert len(names) == 240
    assert sum(32 * sum(sizes[name]) for name in names) == 117_964_800


def test_they_come_in_the_reference_s_order_also_with_others_between() -> None:
    cases = [case for case in vector("train_lora_keys")["cases"] if case.get("arch") == "hunyuan_video"]
    wider = next(case for case in cases if case["network_args"] == {"include_patterns": "[r'.*img_mod.*']"})
    depth = ("double_blocks.0.", "double_blocks.1.", "single_blocks.0.", "single_blocks.1.")

    names = _matching((*SPEC.layout.adapters, ".*img_mod.*"))

    assert [name for name in names if name.startswith(depth)] == [name for _, name, *_ in wider["modules"]]


def test_with_modulation_all_linears_of_the_blocks_are_targets() -> None:
    blocks = [name for name in SPEC.linears() if name.startswith(("double_blocks.", "single_blocks."))]

    assert _matching(SPEC.layout.presets["with_modulation"]) == blocks


@pytest.mark.parametrize(("preset", "count"), [("attention", 80), ("double_blocks", 160), ("single_blocks", 80)])
def test_presets_are_parts_of_the_default_set(preset: str, count: int) -> None:
    names = _matching(SPEC.layout.presets[preset])

    assert len(names) == count
    assert set(names) < set(_matching(SPEC.layout.adapters))


@pytest.mark.parametrize("task", TASKS)
def test_all_linears_are_there_with_the_fused_ones_whole(task: Task) -> None:
    linears = HunyuanVideo(task=task).linears()

    assert len(linears) == 5 + 2 * 5 + 6 + 20 * 10 + 40 * 3 + 2
    assert linears["double_blocks.19.txt_attn_qkv"] == (3072, 9216)
    assert linears["single_blocks.39.linear1"] == (3072, 21504)
    assert linears["single_blocks.39.linear2"] == (15360, 3072)
    assert linears["txt_in.individual_token_refiner.blocks.1.self_attn_qkv"] == (3072, 9216)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("double_blocks.3.txt_attn_qkv.weight", True),
        ("single_blocks.3.linear1.weight", True),
        ("double_blocks.3.img_mod.linear.weight", False),
        ("single_blocks.3.modulation.linear.weight", False),
        ("double_blocks.3.img_attn_q_norm.weight", False),
        ("final_layer.adaLN_modulation.1.weight", False),
        ("txt_in.individual_token_refiner.blocks.0.self_attn_qkv.weight", False),
    ],
)
def test_blocks_are_quantised_but_for_their_modulation(name: str, *, expected: bool) -> None:
    assert quantises(name, SPEC.layout) == expected


@pytest.mark.parametrize("task", TASKS)
def test_all_of_a_default_lora_loads_in_diffusers_and_comfy_as_saved_by_default(task: Task) -> None:
    spec = HunyuanVideo(task=task)
    sizes = spec.linears()
    modules = {name: _lora(*sizes[name]) for name in _matching(spec.layout.adapters)}

    check = LoRAFile(modules=modules).check(spec)

    assert check.layout == spec.interchange.layout == "peft"
    assert {name: check[name].taken for name in ("diffusers", "ComfyUI", "musubi")} == dict.fromkeys(
        ("diffusers", "ComfyUI", "musubi"), 240
    )


def test_the_reference_s_names_load_in_comfy_but_not_in_diffusers() -> None:
    sizes = SPEC.linears()
    modules = {name: _lora(*sizes[name]) for name in _matching(SPEC.layout.adapters)}

    check = LoRAFile(modules=modules, layout="reference").check(SPEC, layout="reference")

    assert check["musubi-tuner"].complete
    assert check["diffusers"].taken == 0


def test_the_levels_are_shifted_by_seven_in_training_and_sampling() -> None:
    assert Euler(shift=7.0) == SPEC.sampler
    assert Shift(shift=7.0) == SPEC.timesteps


def test_clips_and_stills_have_one_frame_more_than_a_multiple_of_four() -> None:
    assert not SPEC.geometry.frame_issues(129)
    assert not SPEC.geometry.frame_issues(1)
    assert "nearest are 125 and 129" in SPEC.geometry.frame_issues(128)[0].hint


def test_the_metadata_are_the_reference_s() -> None:
    assert (SPEC.name, SPEC.cache_suffix) == ("hunyuan_video", "hv")
    assert SPEC.metadata["modelspec.architecture"] == "hunyuan-video/lora"
    assert SPEC.metadata["modelspec.implementation"] == "https://github.com/Tencent/HunyuanVideo"


@pytest.mark.parametrize("verb", ["codec", "denoiser"])
def test_what_is_not_there_yet_says_so(verb: str) -> None:
    with pytest.raises(MusubiError, match=r"this version of musubi cannot .* SkyReels V1 I2V yet"):
        getattr(HunyuanVideo.skyreels_i2v(), verb)()


def _lora(inputs: int, outputs: int) -> LoRAWeights:
    return LoRAWeights(down=torch.zeros(1, inputs), up=torch.zeros(outputs, 1), alpha=torch.tensor(0.5))
