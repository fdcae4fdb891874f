"""A file's ``modelspec.*`` entries are the reference's.

Different on purpose: a file without a title has the trainer's name, the resolution is the training data's and not
one for all, the base model's licence is told where nobody gives one, and times have a zone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import pytest

import musubi
from musubi import About, Cache, LoRA, Trainer, Uniform
from musubi.architecture import Architecture
from musubi.core.kinds import find
from musubi.training.metadata import Moment, described
from tests.parity.cases import vector_cases

CASES = [case for case in vector_cases("train_misc") if case["kind"] == "modelspec"]
OTHERWISE = {"resolution", "date", "license"}

MODELS: Mapping[str, Callable[[], Architecture]] = {
    "hunyuan_video": lambda: _first("HunyuanVideo"),
    "wan": musubi.Wan.t2v_14b,
    "framepack": lambda: _first("FramePack"),
    "flux_kontext": lambda: _first("FluxKontext"),
    "qwen_image": lambda: _first("QwenImage"),
    "qwen_image_edit": musubi.QwenImage.edit,
}


def _first(name: str) -> Architecture:
    """Return the first variant of an architecture, if it is there."""
    cls = getattr(musubi, name, None)
    if cls is None:
        pytest.skip(f"{name} arrives with its issue")
    made: Architecture = next(getattr(cls, n) for n, member in vars(cls).items() if isinstance(member, classmethod))()
    return made


def moment() -> Moment:
    return Moment(step=1, total=1, taken=1, per_step=1, batches=1, items=(), data="", rate=1e-4, precision="bfloat16")


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_train_misc_modelspec(case: dict[str, Any]) -> None:
    model = MODELS[case["arch"]]()
    low, high = case.get("timesteps") or (None, None)
    trainer = Trainer(
        model=model,
        cache=Cache("cache", model=model),
        network=LoRA() if case.get("is_lora", True) else find("network", "full")(),
        about=About(
            title=case.get("title"),
            author=case.get("author"),
            description=case.get("description"),
            license=case.get("license"),
            tags=tuple(tag for tag in (case.get("tags") or "").split(",") if tag),
        ),
        timesteps=Uniform(low=(low or 0) / 1000, high=(1000 if high is None else high) / 1000),
    )

    told = {name: text for name, text in described(trainer, moment()).items() if name.startswith("modelspec.")}

    expected = dict(case["metadata"])
    if case.get("title") is None:
        expected["modelspec.title"] = trainer.name
    left_out = {f"modelspec.{name}" for name in OTHERWISE}
    assert {n: t for n, t in told.items() if n not in left_out} == {
        n: t for n, t in expected.items() if n not in left_out
    }
    assert case.get("license") in {None, told.get("modelspec.license")}
    assert datetime.fromisoformat(told["modelspec.date"]).tzinfo is not None
