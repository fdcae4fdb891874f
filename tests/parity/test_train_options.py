"""Every option of the reference's training scripts has a place in the guide, and what is said of it there is true."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import musubi
from musubi import Cache, Trainer, hub
from musubi.core.kinds import KINDS, find
from musubi.testing.toy import Toy
from musubi.training.trackers import TrackerCallback
from tests.parity.cases import vector_cases

GUIDE = Path(__file__).parents[2] / "docs/guides/from-musubi-tuner.md"
ROW = re.compile(r"^\| (?P<options>`--\w+`(?:, `--\w+`)*) \| (?P<here>.+) \| (?P<last>.+) \|$", re.MULTILINE)
NAME = re.compile(r"`(--\w+)`")
TRAINER = Trainer(model=Toy(), cache=Cache("cache", model=Toy()))
CASES = vector_cases("train_options")


def rows() -> list[tuple[list[str], str, str]]:
    text = GUIDE.read_text(encoding="utf-8")
    return [(NAME.findall(row["options"]), row["here"], row["last"]) for row in ROW.finditer(text)]


def options() -> dict[str, tuple[str, str]]:
    """Return what stands beside each option, values aside: what takes its place, and the default."""
    told = [(option, here, default) for names, here, default in rows() for option in names]
    return {option: (here, default) for option, here, default in reversed(told)}


def values(option: str) -> set[str]:
    """Return the values of an option that the guide has a row for, or names where it tells of the option."""
    own = [here if "`" in here else "" for names, here, _ in rows() if names == [option]]
    return {value for cell in own for value in re.findall(r"`([\w.]+)`", cell)}


def given(call: Callable[..., object], name: str) -> object:
    return inspect.signature(call).parameters[name].default


def usual(family: str, kind: str, field: str) -> object:
    """Return a field of a kind's object that is made without arguments."""
    return getattr(find(family, kind)(), field)


def used(kind: str) -> bool:
    return any(policy.kind == kind for policy in TRAINER.memory)


OURS: Mapping[str, object] = {
    "--max_train_steps": TRAINER.usual_steps,
    "--max_train_epochs": TRAINER.epochs,
    "--gradient_accumulation_steps": TRAINER.accumulate,
    "--gradient_checkpointing": used("gradient_checkpointing"),
    "--blocks_to_swap": used("block_swap") or None,
    "--fp8_base": used("fp8_scaled"),
    "--fp8_scaled": used("fp8_scaled"),
    "--compile": used("compile"),
    "--compile_backend": usual("memory", "compile", "backend"),
    "--compile_mode": usual("memory", "compile", "mode"),
    "--compile_fullgraph": usual("memory", "compile", "fullgraph"),
    "--compile_dynamic": usual("memory", "compile", "dynamic"),
    "--fused_backward_pass": usual("optimizer", "adafactor", "fused_backward"),
    "--max_grad_norm": TRAINER.max_grad_norm,
    "--lr_scheduler": TRAINER.schedule.kind,
    "--lr_warmup_steps": TRAINER.schedule.warmup,
    "--lr_scheduler_power": usual("schedule", "polynomial", "power"),
    "--lr_scheduler_timescale": usual("schedule", "inverse_sqrt", "timescale"),
    "--sigmoid_scale": usual("timesteps", "sigmoid", "scale"),
    "--weighting_scheme": TRAINER.weighting.kind,
    "--logit_mean": usual("timesteps", "logit_normal", "mean"),
    "--logit_std": usual("timesteps", "logit_normal", "std"),
    "--mode_scale": usual("timesteps", "mode", "scale"),
    "--preserve_distribution_shape": usual("timesteps", "sigmoid", "preserve_shape"),
    "--num_timestep_buckets": usual("timesteps", "sigmoid", "strata"),
    "--network_weights": TRAINER.initial,
    "--dim_from_weights": TRAINER.initial is not None,
    "--scale_weight_norms": usual("network", "lora", "max_norm"),
    "--save_every_n_steps": TRAINER.save_every,
    "--save_every_n_epochs": TRAINER.save_every_epochs,
    "--save_last_n_steps": TRAINER.keep_last,
    "--save_last_n_epochs": TRAINER.keep_last,
    "--save_last_n_steps_state": TRAINER.keep_last_states,
    "--save_last_n_epochs_state": TRAINER.keep_last_states,
    "--save_state": TRAINER.state_every is not None,
    "--resume": given(Trainer.run, "resume"),
    "--sample_prompts": TRAINER.samples or None,
    "--sample_every_n_steps": TRAINER.sample_every,
    "--sample_every_n_epochs": TRAINER.sample_every_epochs,
    "--log_tracker_config": given(TrackerCallback, "options"),
    "--log_config": given(TrackerCallback, "trainer") is not None,
    "--save_state_to_huggingface": given(hub.UploadCallback, "states"),
}
"""Our default of every option that the guide calls the same."""


def name(case: dict[str, Any]) -> str:
    return f"{case['scope']}{case['option']}"


@pytest.mark.parametrize("case", CASES, ids=name)
def test_train_options_every_one_has_a_place_in_the_guide(case: dict[str, Any]) -> None:
    here, default = options()[case["option"]]

    assert here
    if default == "same":
        assert OURS[case["option"]] == case["default"]


@pytest.mark.parametrize("case", [case for case in CASES if case["choices"]], ids=name)
def test_train_options_every_choice_has_a_place_in_the_guide(case: dict[str, Any]) -> None:
    here, _ = options()[case["option"]]
    if "not there yet" in here:
        return

    told = values(case["option"]) | set(re.findall(r"`([\w-]+)`", here))

    assert {choice for choice in case["choices"] if choice is not None} <= told


def test_train_options_what_is_called_the_same_is_compared() -> None:
    same = {option for option, (_, default) in options().items() if default == "same"}

    assert same == set(OURS)


def test_train_options_what_the_guide_offers_is_there() -> None:
    classes = {found for _, here, last in rows() for found in re.findall(r"\b([A-Z]\w+)\(", here + last)}
    kinds = {path.partition(":")[2] for table in KINDS.values() for path in table.values()}

    assert {
        found for found in classes - kinds - {"Path"} if not hasattr(musubi, found) and not hasattr(hub, found)
    } == set()
