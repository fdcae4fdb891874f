from __future__ import annotations

import json
from pathlib import Path

import pytest

from musubi import FP8Scaled, GradientCheckpointing, LoRA, Request, Trainer
from musubi.testing.toy import Toy
from musubi.training.about import About
from musubi.training.prior import PriorPreservation
from musubi.training.settings import settings, told_settings
from musubi.training.validation import Validation

HARMLESS = {
    "steps": 99,
    "output": Path("elsewhere"),
    "name": "other",
    "about": About(title="T"),
    "device": "cpu",
    "memory": (GradientCheckpointing(),),
    "on_nonfinite": "skip",
    "validation": Validation(every=2),
    "save_every": 1,
    "save_every_epochs": 1,
    "state_every": 1,
    "state_every_epochs": 1,
    "keep_last": 1,
    "keep_last_states": 1,
    "samples": (Request("a fox"),),
}
DECISIVE = {
    "seed": 4,
    "network": LoRA(rank=5),
    "accumulate": 3,
    "max_grad_norm": None,
    "memory": (FP8Scaled(),),
    "model": Toy(seed=1),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_alters_no_step_may_change(name: str, trainer: Trainer[Toy]) -> None:
    assert settings(trainer.replace(**{name: HARMLESS[name]})) == settings(trainer)


@pytest.mark.parametrize("name", DECISIVE)
def test_what_alters_steps_must_be_the_same(name: str, trainer: Trainer[Toy]) -> None:
    assert settings(trainer.replace(**{name: DECISIVE[name]})) != settings(trainer)


def test_every_field_of_a_trainer_is_decisive_or_may_change(trainer: Trainer[Toy]) -> None:
    left_out = set(trainer.to_dict()) - set(settings(trainer))

    assert left_out <= {*HARMLESS, "cache", "epochs", "sample_every", "sample_every_epochs"}


def test_files_are_told_without_their_folders(trainer: Trainer[Toy], tmp_path: Path) -> None:
    full = trainer.replace(
        model=Toy().with_weights(dit=tmp_path / "dit.safetensors"),
        initial=tmp_path / "first.safetensors",
        prior=PriorPreservation(cache=trainer.cache),
    ).with_base_lora(tmp_path / "style.safetensors", weight=0.5)

    text = json.dumps([settings(full), told_settings(full)])

    assert str(tmp_path) not in text
    assert tmp_path.as_posix() not in text
    assert settings(full)["base_loras"] == ["style.safetensors:0.5"]
    assert settings(full)["initial"] == "first.safetensors"
    assert settings(full)["model"]["weights"] == {"dit": "dit.safetensors"}
    assert settings(full)["prior"] == {"weight": 1.0, "target": "base"}


def test_trackers_are_told_everything_in_plain_values(trainer: Trainer[Toy]) -> None:
    told = told_settings(trainer.with_memory(GradientCheckpointing()).with_samples("a fox", every=5))

    assert told["network.rank"] == 4
    assert told["steps"] == 10
    assert "gradient_checkpointing" in str(told["memory"])
    assert "a fox" in str(told["samples"])
    assert all(isinstance(value, str | int | float | bool) for value in told.values())
    assert not {"output", "cache.folder"} & set(told)
