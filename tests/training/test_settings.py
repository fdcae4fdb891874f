from __future__ import annotations

import json
from pathlib import Path

import pytest

from musubi import (
    NF4,
    ActivationOffload,
    Attention,
    BlockSwap,
    Compile,
    ConfigError,
    FP8Cast,
    FP8Scaled,
    GradientCheckpointing,
    Int8Scaled,
    LoRA,
    Memory,
    MemoryPolicy,
    Request,
    TextEncoderMemory,
    Trainer,
    VAETiling,
)
from musubi.core import kinds
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

PLACES: tuple[MemoryPolicy, ...] = (
    ActivationOffload(),
    Attention(backend="sdpa_math"),
    BlockSwap(blocks=1),
    Compile(),
    GradientCheckpointing(),
    TextEncoderMemory(on_cpu=True),
    VAETiling(),
)
"""Policies that leave the base weights as they are: a run may go on with others. Kernels differ by rounding only."""

CHANGES: tuple[MemoryPolicy, ...] = (
    FP8Cast(),
    FP8Scaled(),
    FP8Scaled(mode="channel"),
    FP8Scaled(mode="channel", compute="fp8"),
    Int8Scaled(),
    NF4(),
)
"""Policies under which the base weights are other numbers."""


@pytest.mark.parametrize("policy", [p for p in PLACES if not p.for_components], ids=lambda policy: policy.kind)
def test_a_run_may_go_on_with_other_places_and_kernels(policy: MemoryPolicy, trainer: Trainer[Toy]) -> None:
    before = trainer.with_memory(Int8Scaled())

    assert settings(before.with_memory(policy, Int8Scaled())) == settings(before)


def test_a_run_may_not_go_on_with_other_weights(trainer: Trainer[Toy]) -> None:
    told = [json.dumps(settings(trainer.with_memory(*policies))) for policies in ((), *((one,) for one in CHANGES))]

    assert len(set(told)) == len(told)


def test_a_run_may_not_go_on_with_a_file_of_other_weights(trainer: Trainer[Toy], tmp_path: Path) -> None:
    files = [trainer.replace(model=Toy().with_weights(dit=tmp_path / name)) for name in ("bf16.pth", "fp8.pth")]

    assert settings(files[0]) != settings(files[1])


def test_every_kind_of_policy_is_one_or_the_other() -> None:
    known = {policy.kind for policy in (*PLACES, *CHANGES)}

    assert known == set(kinds.KINDS["memory"]) - {Memory.kind}  # which is replaced by what it chooses
    assert all(policy.changes_weights for policy in CHANGES)
    assert not any(policy.changes_weights for policy in PLACES)


def test_a_state_of_other_weights_is_refused_by_name(trainer: Trainer[Toy]) -> None:
    state = trainer.replace(steps=1).with_memory(Int8Scaled()).run(progress=False).state

    with pytest.raises(ConfigError, match=r"weights_changed_by: was .*int8_scaled.*, is .*fp8_scaled"):
        trainer.with_memory(FP8Scaled()).run(resume=state, progress=False)


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
