from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import attrs
import numpy as np
import pytest
from accelerate import tracking
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from musubi import ConfigError, Image, Video
from musubi.training.tracker_sink import TrackerSink


@attrs.define
class Package:
    """What a tracker's own package calls a picture or a clip."""

    data: object
    format: str = ""


class Recording(tracking.GeneralTracker):  # type: ignore[misc]  # accelerate has no types
    """A tracker of accelerate's form that keeps what it is told, and fails as often as it is asked to."""

    name = "trackio"
    requires_logging_directory = False
    made: ClassVar[list[Recording]] = []

    def __init__(self, project: str, **options: object) -> None:
        super().__init__(_blank=True)
        self.project, self.options = project, options
        self.logged: list[tuple[dict[str, Any], int | None]] = []
        self.settings: dict[str, Any] = {}
        self.failures = 0
        self.finished = False
        self.made.append(self)

    def start(self) -> None:
        if self.options.get("broken"):
            raise RuntimeError("nobody is logged in\nat all")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.settings = values

    def log(self, values: dict[str, Any], step: int | None = None, **_: object) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the network is away")
        self.logged.append((values, step))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def trackio(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    """Stand where trackio stands, which keeps its runs on the network."""
    package = types.ModuleType("trackio")
    package.Image = package.Video = Package  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "trackio", package)
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "trackio", Recording)
    monkeypatch.setattr(tracking, "_available_trackers", ["tensorboard", "trackio"])
    monkeypatch.setattr(Recording, "made", [])
    return Recording.made


def sink(name: str, folder: Path, **options: object) -> TrackerSink:
    return TrackerSink(name, project="styles", run="clay", folder=folder, options=options)


def opened(name: str, folder: Path, settings: Mapping[str, str | int | float | bool] | None = None) -> TrackerSink:
    found = sink(name, folder)
    found.open(settings or {})
    return found


def files(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder / "clay"))
    found.Reload()
    return found


CLIP = Video(np.stack([np.full((8, 8, 3), 20 * i, np.uint8) for i in range(9)]), fps=8)
PICTURE = Image(np.full((16, 8, 3), 200, np.uint8))


def test_pictures_and_frames_of_clips_are_shown_in_tensorboard(tmp_path: Path) -> None:
    tensorboard = opened("tensorboard", tmp_path)

    tensorboard.samples([PICTURE, CLIP], [], step=4)
    tensorboard.close()

    images = files(tmp_path)
    (picture,), (clip,) = images.Images("sample_0"), images.Images("sample_1")
    assert (picture.step, picture.width, picture.height) == (4, 8, 16)
    assert (clip.width, clip.height) == (48, 8)


def test_settings_are_a_table_in_tensorboard(tmp_path: Path) -> None:
    opened("tensorboard", tmp_path, {"network.rank": 16, "seed": 3}).close()

    assert [path.name for path in tmp_path.iterdir()] == ["clay"]
    (text,) = files(tmp_path).Tensors("settings/text_summary")
    assert b"| network.rank | 16 |" in text.tensor_proto.string_val[0]


def test_a_tracker_with_projects_hears_project_run_and_options(trackio: list[Recording], tmp_path: Path) -> None:
    found = sink("trackio", tmp_path / "logs", space_id="me/space")
    found.open({"seed": 3})
    found.scalars({"loss/current": 0.5}, step=7)
    found.close()

    (tracker,) = trackio
    assert (tracker.project, tracker.options) == ("styles", {"name": "clay", "space_id": "me/space"})
    assert (tracker.settings, tracker.logged) == ({"seed": 3}, [({"loss/current": 0.5}, 7)])
    assert tracker.finished
    assert not (tmp_path / "logs").exists()


def test_clips_go_whole_to_trackers_that_can_show_them(trackio: list[Recording], tmp_path: Path) -> None:
    found = opened("trackio", tmp_path)

    found.samples([CLIP, PICTURE, CLIP], [tmp_path / "fox.mp4", tmp_path / "fox.png"], step=2)

    first, second, third = (values for values, _ in trackio[0].logged)
    assert first["sample_0"] == Package(str(tmp_path / "fox.mp4"), "mp4")
    assert second["sample_1"].data.shape == (16, 8, 3)
    assert third["sample_2"].data.shape == (8, 48, 3)


def test_a_failure_is_warned_of_and_forgotten_after_a_success(
    trackio: list[Recording], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = opened("trackio", tmp_path)

    for step in range(6):
        trackio[0].failures = 1 if step in {0, 1, 3, 4} else 0
        found.scalars({"loss": 1.0}, step=step)

    assert [step for _, step in trackio[0].logged] == [2, 5]
    assert caplog.messages == ["trackio did not take a log: the network is away"] * 4


def test_a_tracker_that_keeps_failing_is_left_alone_but_closed(
    trackio: list[Recording], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = opened("trackio", tmp_path)
    trackio[0].failures = 3

    for step in range(6):
        found.scalars({"loss": 1.0}, step=step)
    found.close()

    assert not trackio[0].logged
    assert len(caplog.messages) == 3
    assert caplog.messages[-1].endswith("nothing more is logged to it")
    assert trackio[0].finished


def test_a_tracker_that_does_not_start_is_an_error(trackio: list[Recording], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trackio: does not start: nobody is logged in \(hint: log in"):
        sink("trackio", tmp_path, broken=True).open({})


def test_a_tracker_that_does_not_exist_or_is_not_installed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'tensorboard'"):
        sink("tensorbord", tmp_path)
    with pytest.raises(ConfigError, match=r"is not installed \(hint: pip install comet_ml"):
        sink("comet_ml", tmp_path)
