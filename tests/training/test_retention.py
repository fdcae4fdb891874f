from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musubi.training import state
from musubi.training.files import When, Written, present
from musubi.training.retention import clear, outdated


class Output:
    """A folder into which files and states are written, a second between one and the next."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder, self._clock = folder, 1_000_000

    def write(self, when: When, number: int = 0, *, state: bool = False, name: str = "lora") -> Path:
        path = Written(when=when, number=number, state=state).path(self.folder, name)
        if state:
            path.mkdir(exist_ok=True)
            (path / "run.json").write_text("{}", encoding="utf-8")
        else:
            path.write_text("", encoding="utf-8")
        self._clock += 1
        os.utime(path, (self._clock, self._clock))
        return path

    def numbers(self, when: When, *, state: bool = False) -> list[int]:
        return sorted(w.number for _, w in present(self.folder, "lora") if (w.when, w.state) == (when, state))


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output(tmp_path / "out")


def written(
    output: Output, when: When, numbers: Iterable[int], *, state: bool = False, keep: int | None = None
) -> None:
    for number in numbers:
        path = output.write(when, number, state=state)
        if keep is not None:
            clear(path, "lora", keep=keep)


@settings(max_examples=30, deadline=None)
@given(keep=st.integers(1, 6), saves=st.integers(1, 8), state=st.booleans(), when=st.sampled_from(["step", "epoch"]))
def test_the_newest_few_stay(
    tmp_path_factory: pytest.TempPathFactory, keep: int, saves: int, state: bool, when: When
) -> None:
    output = Output(tmp_path_factory.mktemp("newest") / "out")

    written(output, when, range(10, 10 * saves + 1, 10), state=state, keep=keep)

    assert output.numbers(when, state=state) == [*range(10, 10 * saves + 1, 10)][-keep:]


def test_what_goes_is_told(output: Output) -> None:
    written(output, "step", (1, 2, 3))

    gone = clear(output.write("step", 4), "lora", keep=2)

    assert [path.name for path in gone] == ["lora-step00000002.safetensors", "lora-step00000001.safetensors"]


def test_only_files_of_the_same_kind_and_of_exactly_this_run_make_room(output: Output) -> None:
    others = [
        output.write("epoch", 1),
        output.write("step", 1, state=True),
        output.write("last"),
        output.write("best"),
        output.write("last", state=True),
        output.write("step", 1, name="lora-v2"),
        output.write("step", 1, name="Lora"),
    ]
    notes = output.folder / "lora-step00000001.txt"
    notes.write_text("mine", encoding="utf-8")
    old = output.write("step", 1)

    gone = clear(output.write("step", 2), "lora", keep=1)

    assert gone == (old,)
    assert all(path.exists() for path in (*others, notes))


@pytest.mark.parametrize("when", ["last", "best"])
def test_what_is_final_or_best_removes_nothing_and_is_never_removed(output: Output, when: When) -> None:
    written(output, "step", (1, 2, 3))

    assert clear(output.write(when), "lora", keep=1) == ()
    assert clear(output.write(when, state=True), "lora", keep=1) == ()
    assert output.numbers("step") == [1, 2, 3]


def test_leftovers_of_an_earlier_run_of_the_same_name_go_first_whatever_their_number(output: Output) -> None:
    written(output, "step", range(100, 1700, 100))

    written(output, "step", (250, 500, 750), keep=2)

    assert output.numbers("step") == [500, 750]


def test_a_run_resumed_from_the_middle_takes_the_place_of_later_files_little_by_little(output: Output) -> None:
    written(output, "step", (100, 200, 300), state=True, keep=3)

    gone = clear(output.write("step", 150, state=True), "lora", keep=3)

    assert [path.name for path in gone] == ["lora-step00000100-state"]
    assert output.numbers("step", state=True) == [150, 200, 300]


def test_where_the_clock_is_too_coarse_the_number_decides(output: Output) -> None:
    for path in [output.write("step", number) for number in (3, 1, 2, 4)]:
        os.utime(path, (5, 5))

    clear(output.folder / "lora-step00000004.safetensors", "lora", keep=2)

    assert output.numbers("step") == [3, 4]


def test_what_was_just_written_stays_even_if_the_clock_went_back(output: Output) -> None:
    written(output, "step", (1, 2))
    just = output.write("step", 3)
    os.utime(just, (1, 1))

    clear(just, "lora", keep=1)

    assert output.numbers("step") == [3]


def test_what_is_spared_stays_and_is_only_looked_at(output: Output) -> None:
    written(output, "step", (1, 2), state=True)
    just = output.write("step", 3, state=True)

    gone = outdated(just, "lora", keep=1, spared=[output.folder / "lora-step00000001-state"])

    assert [path.name for path in gone] == ["lora-step00000002-state"]
    assert output.numbers("step", state=True) == [1, 2, 3]


def test_what_cannot_be_removed_stays_with_a_warning(
    output: Output, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    written(output, "step", (1,))

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with caplog.at_level(logging.WARNING):
        gone = clear(output.write("step", 2), "lora", keep=1)

    assert gone == ()
    assert output.numbers("step") == [1, 2]
    assert "lora-step00000001.safetensors: Permission denied" in caplog.text


def test_a_state_whose_removal_was_interrupted_is_gone_and_cleared_away_by_the_next_run(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(output, "step", (1,), state=True)

    def interrupted(path: Path, ignore_errors: bool = False) -> None:
        raise KeyboardInterrupt

    newer = output.write("step", 2, state=True)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            clear(newer, "lora", keep=1)

    assert output.numbers("step", state=True) == [2]
    assert len(list(output.folder.iterdir())) == 2
    state.tidy(output.folder, "lora")
    assert [path.name for path in output.folder.iterdir()] == ["lora-step00000002-state"]
