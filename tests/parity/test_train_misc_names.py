"""Names of files, which of them stay, and how numbers and types are written: what the reference's runs leave behind."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast, get_args

import pytest
import torch

from musubi.cache.building.dtypes import EncoderDtype, encoder_dtype
from musubi.core.errors import ConfigError
from musubi.optim.schedules import Constant
from musubi.training.counting import due_epoch, epoch_ends
from musubi.training.files import When, Written, parsed
from musubi.training.retention import clear
from tests.parity.cases import vector_cases

CASES = vector_cases("train_misc")
_TOTAL = 1000


def _cases(kind: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    found = [case for case in CASES if case["kind"] == kind]
    return pytest.mark.parametrize("case", found, ids=[case["id"] for case in found])


@_cases("names")
def test_train_misc_files_and_states_have_the_references_names(case: dict[str, Any]) -> None:
    name = case["output_name"]
    expected = {
        Written(when="epoch", number=case["epoch"]): case["epoch_file"],
        Written(when="step", number=case["step"]): case["step_file"],
        Written(when="last"): case["last_file"],
        Written(when="epoch", number=case["epoch"], state=True): case["epoch_state"],
        Written(when="step", number=case["step"], state=True): case["step_state"],
        Written(when="last", state=True): case["last_state"],
    }

    assert {written: written.of(name) for written in expected} == expected
    for written, file in expected.items():
        rare = written.when == "epoch" and written.number > 99_999  # read as a date in a name, see files.py
        assert parsed(file, name) == (None if rare else written)


@_cases("retention")
def test_train_misc_a_run_leaves_the_files_that_the_reference_leaves(case: dict[str, Any], tmp_path: Path) -> None:
    if case.get("save_last_n_epochs") == 0:
        pytest.skip("0 deletes the file just written in the reference (spec/training.md 5.1); here it is refused")

    for written in _written_by_the_reference(case):
        path = written.path(tmp_path, "m")
        path.mkdir() if written.state else path.touch()
        keep = _kept(case, written)
        if keep is not None:
            clear(path, "m", keep=keep)

    assert sorted(path.name for path in tmp_path.iterdir()) == case["remaining"]


def _written_by_the_reference(case: dict[str, Any]) -> Iterator[Written]:
    """Yield everything in the order in which the reference writes it: by step also after the last, by epoch not."""
    total, batches = case["max_train_steps"], case["steps_per_epoch"]
    kinds = (False, True) if case.get("save_state") else (False,)
    for step in range(1, total + 1):
        every = case.get("save_every_n_steps")
        if every is not None and step % every == 0:
            yield from (Written(when="step", number=step, state=state) for state in kinds)
        epoch = due_epoch(case.get("save_every_n_epochs"), epoch_ends(step, batches))
        if epoch is not None and step < total:
            yield from (Written(when="epoch", number=epoch, state=state) for state in kinds)
    yield from (Written(when="last", state=state) for state in kinds)


def _kept(case: dict[str, Any], written: Written) -> int | None:
    """Return how many of a kind stay: the reference counts epoch saves, but gives a window of steps to step saves.

    A window of k steps with a save every n of them holds k // n saves beside the newest.
    """
    kind: dict[When, str] = {"step": "save_last_n_steps", "epoch": "save_last_n_epochs"}
    option = kind.get(written.when)
    if option is None:
        return None
    given: int | None = (case.get(f"{option}_state") if written.state else None) or case.get(option)
    if given is None or written.when == "epoch":
        return given
    return given // cast(int, case["save_every_n_steps"]) + 1


@_cases("int_or_float")
def test_train_misc_a_warm_up_is_a_number_of_steps_or_a_share(case: dict[str, Any]) -> None:
    """Text is parsed by the reference's command line only; here the number is written in Python or TOML."""
    kind, value = case["result"]
    if "0.2.13" not in case["versions"]:
        pytest.skip("a later version took steps with a decimal point; v0.2.13 refuses them, and so does this library")
    if kind == "error":
        with pytest.raises((ConfigError, ValueError, SyntaxError)):
            Constant(warmup=ast.literal_eval(case["input"]))
    elif kind == "float" and not 0 <= value < 1:
        with pytest.raises(ConfigError, match="warmup"):  # 1.5 is a warm-up of 150 % in the reference
            Constant(warmup=value)
    else:
        steps = value if kind == "int" else int(value * _TOTAL)
        schedule = Constant(warmup=value)
        assert schedule.factor(steps, _TOTAL) == 1.0
        assert steps == 0 or schedule.factor(steps - 1, _TOTAL) == (steps - 1) / steps


@_cases("str_to_dtype")
def test_train_misc_types_have_torchs_own_names_and_others_are_refused(case: dict[str, Any]) -> None:
    """The reference's short names (bf16, fp8) are spellings of its command line."""
    asked, known = case["input"], get_args(EncoderDtype)
    if asked is None:
        pytest.skip("nothing was asked for: each place has a default of its own")

    if asked in known:
        assert str(getattr(torch, encoder_dtype(asked, None, device="cpu"))) == case["result"]
    else:
        with pytest.raises(ConfigError, match=known[0]):
            encoder_dtype(asked, None, device="cpu")


def test_train_misc_every_kind_of_case_is_covered() -> None:
    elsewhere = {"sshs_hashes", "modelspec"}

    assert {case["kind"] for case in CASES} <= {"names", "retention", "int_or_float", "str_to_dtype"} | elsewhere
