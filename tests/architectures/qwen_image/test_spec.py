from __future__ import annotations

import re
from collections.abc import Iterable
from typing import get_args

import pytest

from musubi.architectures.qwen_image.spec import QwenImage
from musubi.architectures.qwen_image.tasks import PUBLISHED, Task
from musubi.core.errors import ConfigError
from musubi.noise.norm_preserving import NormPreserving
from musubi.noise.samplers import Euler
from tests.parity.cases import vector

TASKS = get_args(Task)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_a_constructor_of_its_name(task: Task) -> None:
    assert getattr(QwenImage, task)() == QwenImage(task=task)


def test_every_task_is_published() -> None:
    assert set(PUBLISHED) == set(TASKS)


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"task: must be one of .*did you mean 'edit_2509'\?"):
        QwenImage(task="edit2509")  # type: ignore[arg-type]


def test_only_editing_needs_pictures() -> None:
    assert QwenImage.text_to_image().roles.required == ()
    assert QwenImage.edit().roles.required == QwenImage.edit_2509().roles.required == ("control",)


@pytest.mark.parametrize("task", ["edit", "edit_2509", "edit_2511"])
def test_a_changed_control_invalidates_both_stages_of_an_edit(task: Task) -> None:
    latents, text = QwenImage(task=task).stages

    assert "controls" in latents.reads
    assert "originals" in text.reads


def _matching(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    return [name for name in names if any(re.fullmatch(pattern, name) for pattern in patterns)]


def test_the_default_targets_are_the_reference_s_840_modulation_included() -> None:
    cases = [case for case in vector("train_lora_keys")["cases"] if case["arch"] == "qwen_image"]
    plain = next(case for case in cases if case["network_args"] == {})
    depth = tuple(f"transformer_blocks.{i}." for i in range(plain["model_config"]["num_layers"]))

    names = _matching(QwenImage().layout.adapters, QwenImage().linears())

    assert len(names) == 840
    assert [name for name in names if name.startswith(depth)] == [name for _, name, *_ in plain["modules"]]


@pytest.mark.parametrize(("preset", "count"), [("without_modulation", 720), ("attention", 480), ("feed_forward", 240)])
def test_presets_are_parts_of_the_default_set(preset: str, count: int) -> None:
    layout, linears = QwenImage().layout, QwenImage().linears()

    names = _matching(layout.presets[preset], linears)

    assert len(names) == count
    assert set(names) < set(_matching(layout.adapters, linears))
    assert not any("_mod" in name for name in names)


def test_all_linears_of_the_published_model_are_known() -> None:
    linears = QwenImage.edit().linears()

    assert len(linears) == 60 * 14 + 6
    assert linears["transformer_blocks.59.img_mod.1"] == (3072, 18432)
    assert linears["txt_in"] == (3584, 3072)


@pytest.mark.parametrize(("task", "shift"), [("text_to_image", 2.3033), ("edit", 2.0008)])
def test_the_grid_is_shifted_as_the_model_s_rule_says(task: Task, shift: float) -> None:
    sampler = QwenImage(task=task).sampler

    assert isinstance(sampler, Euler)
    assert sampler.shift == pytest.approx(shift, abs=1e-4)


def test_training_levels_follow_the_model_s_rule() -> None:
    assert QwenImage().timesteps.logit(6889)[0] == pytest.approx(0.8343, abs=1e-4)


def test_names_stay_as_published() -> None:
    name = "transformer_blocks.3.attn.to_q.weight"

    assert QwenImage().keys.to_library(name)[0].name == name
    assert QwenImage().keys.to_original(name)[0] == name


def test_single_pictures_only() -> None:
    issues = QwenImage().geometry.frame_issues(5)

    assert "makes single pictures" in issues[0].message


def test_guidance_is_the_authors() -> None:
    generation = QwenImage().generation

    assert generation.guidance == NormPreserving(scale=4.0)
    assert generation.negative == " "
    assert (QwenImage().generation.steps, QwenImage.edit_2509().generation.steps) == (50, 40)


def test_the_grid_ends_where_the_model_was_trained_to_end() -> None:
    sampler = QwenImage().sampler

    assert isinstance(sampler, Euler)
    assert sampler.terminal == 0.02
    assert float(sampler.sigmas(50, tokens=6889)[-2]) == pytest.approx(0.02, abs=1e-6)
