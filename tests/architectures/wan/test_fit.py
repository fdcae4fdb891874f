from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from musubi.architecture import Expert
from musubi.architectures.wan.spec import Wan
from musubi.architectures.wan.tasks import PUBLISHED, Task
from musubi.core.errors import WeightsError
from musubi.testing.checkpoints import tiny_wan
from tests.architectures.wan import published
from tests.architectures.wan.fakes import write_sparse

CPU = torch.device("cpu")


def _refusal(wan: Wan) -> str:
    with pytest.raises(WeightsError) as caught:
        wan.denoiser().empty(wan.experts[0])
    return str(caught.value)


@pytest.mark.parametrize("task", PUBLISHED)
def test_a_published_file_fits_its_tasks_and_is_refused_by_all_others(task: Task, tmp_path: Path) -> None:
    fitting = {name for name, file in published.TASKS.items() if file == published.TASKS[task]}
    path = write_sparse(tmp_path / "dit.safetensors", published.FILES[published.TASKS[task]])

    for other in PUBLISHED:
        wan = Wan(task=other)
        asked = wan.with_weights(**{expert.component: path for expert in wan.experts})
        if other in fitting:
            model = asked.denoiser().empty(asked.experts[-1])
            assert all(parameter.is_meta for parameter in model.parameters())
            assert sum(parameter.numel() for parameter in model.parameters()) > 1.4e9
        else:
            message = _refusal(asked)
            assert f"but {wan.title} is needed" in message
            assert {name for name in PUBLISHED if f"Wan.{name}()" in message} == fitting


def test_the_other_size_is_refused_naming_task_file_and_size(tmp_path: Path) -> None:
    path = write_sparse(tmp_path / "small.safetensors", published.transformer(published.SMALL))

    message = _refusal(Wan.t2v_14b().with_weights(dit=path))

    assert "small.safetensors" in message
    assert "wrong weights for the task 't2v_14b'" in message
    assert "is a Wan T2V transformer of width 1536, but Wan 2.1 T2V 14B is needed" in message
    assert "it is for Wan.t2v_1_3b()" in message


@pytest.mark.parametrize(
    ("shapes", "what"),
    [
        (published.transformer(published.LARGE, inputs=36, clip=True), "Wan 2.1 I2V"),
        (published.transformer(published.LARGE, inputs=36, clip=True, flf=True), "FLF2V"),
        (published.transformer(published.LARGE, inputs=48, clip=True), "Fun Control"),
        (published.transformer(published.LARGE, inputs=36), "Wan 2.2 I2V-A14B"),
        (published.FILES["ti2v 5B"], "TI2V-5B"),
        ({**published.transformer(published.LARGE), "vace_blocks.0.after_proj.weight": (4, 4)}, "VACE"),
        ({"double_blocks.0.img_attn_qkv.weight": (9216, 3072)}, "HunyuanVideo"),
        ({"something.weight": (4, 4)}, "an unknown checkpoint (1 tensors: something.weight)"),
        (published.umt5(layers=2), "a umT5 encoder"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_anything_else_is_refused_by_its_name(shapes: published.Shapes, what: str, tmp_path: Path) -> None:
    path = write_sparse(tmp_path / "other.safetensors", shapes)

    message = _refusal(Wan.t2v_14b().with_weights(dit=path))

    assert "other.safetensors" in message
    assert what in message


def test_widths_that_nobody_published_fit_every_task(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny = tiny_wan(tmp_path)
    with caplog.at_level(logging.DEBUG, logger="musubi.architectures.wan.fit"):
        Wan.t2v_14b().with_weights(**tiny.weights).denoiser().empty(Expert())

    assert "width 64, which no published model has" in caplog.text


@pytest.mark.parametrize("component", ["vae", "t5"])
def test_a_component_in_the_place_of_another_is_refused(component: str, tmp_path: Path) -> None:
    tiny = tiny_wan(tmp_path)

    with pytest.raises(WeightsError, match=f"wrong weights for '{component}'") as caught:
        tiny.with_weights(**{component: tiny.weight("dit")}).codec().load(component, device=CPU, dtype=torch.float32)

    assert "is a Wan T2V transformer of width 64, not" in str(caught.value)


def test_a_file_of_4_bits_is_refused_before_its_shapes_confuse(tmp_path: Path) -> None:
    shapes = {**published.transformer(published.SMALL), "blocks.0.ffn.0.weight_scale_2": ()}
    path = write_sparse(tmp_path / "nvfp4.safetensors", shapes)

    assert "quantised in a way that is not supported" in _refusal(Wan.t2v_1_3b().with_weights(dit=path))


def test_each_expert_finds_its_transformer_in_a_folder_of_a_whole_pipeline(tmp_path: Path) -> None:
    tiny = tiny_wan(tmp_path, task="t2v_a14b", layout="diffusers")
    whole = tiny.with_weights(dit_high=tmp_path, dit_low=tmp_path)

    for expert in tiny.experts:
        one, other = (
            wan.denoiser().load(expert, device=CPU, dtype=torch.float32).state_dict() for wan in (tiny, whole)
        )
        assert all(torch.equal(value, other[name]) for name, value in one.items())
