from __future__ import annotations

import re
from typing import get_args

import pytest

from musubi.architectures.qwen_image.spec import PUBLISHED, QwenImage, Task
from musubi.core.errors import ConfigError, MusubiError
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


@pytest.mark.parametrize("task", ["edit", "edit_2509"])
def test_a_changed_control_invalidates_both_stages_of_an_edit(task: Task) -> None:
    assert all("controls" in stage.reads for stage in QwenImage(task=task).stages)


def test_the_default_targets_are_the_reference_s() -> None:
    cases = [case for case in vector("train_lora_keys")["cases"] if case["arch"] == "qwen_image"]
    plain = next(case for case in cases if case["network_args"] == {})
    (pattern,) = QwenImage().layout.adapters

    expected = [name for _, name, *_ in plain["modules"]]

    assert all(re.fullmatch(pattern, name) for name in expected)
    assert len(expected) / plain["model_config"]["num_layers"] * 60 == 840


def test_norms_are_no_targets() -> None:
    (pattern,) = QwenImage().layout.adapters

    assert not re.fullmatch(pattern, "transformer_blocks.0.attn.norm_q")
    assert not re.fullmatch(pattern, "img_in")


@pytest.mark.parametrize(("task", "shift"), [("text_to_image", 2.3033), ("edit", 2.0008)])
def test_the_grid_is_shifted_as_the_model_s_rule_says(task: Task, shift: float) -> None:
    sampler = QwenImage(task=task).sampler

    assert isinstance(sampler, Euler)
    assert sampler.shift == pytest.approx(shift, abs=1e-4)


def test_names_stay_as_published() -> None:
    name = "transformer_blocks.3.attn.to_q.weight"

    assert QwenImage().keys.to_library(name)[0].name == name
    assert QwenImage().keys.to_original(name)[0] == name


def test_single_pictures_only() -> None:
    issues = QwenImage().geometry.frame_issues(5)

    assert "makes single pictures" in issues[0].message


@pytest.mark.parametrize("verb", ["codec", "denoiser"])
def test_what_is_not_there_yet_says_so(verb: str) -> None:
    with pytest.raises(MusubiError, match=r"cannot .* Qwen-Image-Edit-2509 yet"):
        getattr(QwenImage.edit_2509(), verb)()
