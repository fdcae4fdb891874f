from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from musubi import ConfigError
from musubi.core.events import Band, Validated
from musubi.training import state
from musubi.training.state import RunState

STATE = RunState(
    step=3,
    taken=6,
    settings={"seed": 1},
    data="abc",
    trained={"a": torch.ones(2)},
    optimizer={"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": []},
    averages={"a": torch.zeros(2)},
    losses=(0.1, 0.2, 0.3),
    rates=(1e-3, 1e-3, 1e-3),
    validations=(Validated(step=2, loss=0.5, bands=(Band(low=0.0, high=1.0, loss=0.5),), best=True),),
)


def test_a_state_survives_its_folder(tmp_path: Path) -> None:
    loaded = RunState.load(STATE.save(tmp_path / "run-state"))

    assert (loaded.step, loaded.taken, loaded.settings, loaded.data) == (3, 6, {"seed": 1}, "abc")
    assert (loaded.losses, loaded.rates, loaded.validations) == (STATE.losses, STATE.rates, STATE.validations)
    assert torch.equal(loaded.trained["a"], STATE.trained["a"])
    assert torch.equal(loaded.averages["a"], STATE.averages["a"])


def test_a_save_killed_between_its_two_renames_loses_nothing(tmp_path: Path) -> None:
    folder = STATE.save(tmp_path / "run-state")
    folder.rename(tmp_path / ".run-state.old")
    (tmp_path / ".run-state.0a1b.tmp").mkdir()

    state.tidy(tmp_path, "run")

    assert RunState.load(folder).step == 3
    assert [path.name for path in tmp_path.iterdir()] == ["run-state"]


def test_what_another_run_is_saving_in_the_same_folder_is_left_alone(tmp_path: Path) -> None:
    theirs = {".run2-state.old", ".run2-step00000003-state.0a1b.tmp", ".running-state.0a1b.tmp"}
    for name in theirs:
        (tmp_path / name).mkdir()

    state.tidy(tmp_path, "run")

    assert {path.name for path in tmp_path.iterdir()} == theirs


@pytest.mark.parametrize("file", ["run.json", "trained.safetensors", "optimizer.pt", "history.safetensors"])
@pytest.mark.parametrize("damage", [b"", b"{}", b"\x80\x02garbage"])
def test_a_damaged_state_is_refused_by_name(tmp_path: Path, file: str, damage: bytes) -> None:
    folder = STATE.save(tmp_path / "run-state")
    (folder / file).write_bytes(damage)

    with pytest.raises(ConfigError, match="run-state"):
        RunState.load(folder)


def test_a_folder_without_a_readable_state_is_never_the_latest(tmp_path: Path) -> None:
    good = STATE.save(tmp_path / "run-step00000003-state")
    broken = STATE.save(tmp_path / "run-step00000004-state")
    (broken / "run.json").write_text("{", encoding="utf-8")
    shutil.copytree(good, tmp_path / "running-state")

    assert state.latest(tmp_path, "run") == good
    assert state.latest(tmp_path, "ru") is None
    assert state.latest(tmp_path / "nowhere", "run") is None
