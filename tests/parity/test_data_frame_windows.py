"""The windows cut from a clip, their source frames and the names of their cache files, equal to the reference's."""

from __future__ import annotations

from typing import Any

import pytest

from musubi import ConfigError, Dataset, Geometry, compat
from musubi.cache.format import SUFFIX, latent_label
from musubi.data.sample import Probe, Window
from tests.parity.cases import vector_cases

TARGET_FPS = {"hv": 24.0, "wan": 16.0, "fp": 30.0}
MODES = ("head", "chunk", "slide", "uniform", "full")
OPTIONS = {"slide": ("frame_stride", "stride"), "uniform": ("frame_sample", "sample"), "full": ("max_frames",) * 2}
"""What a strategy reads besides the lengths, by its names in a dataset file and in a case."""


def _dataset(case: dict[str, Any]) -> Dataset:
    """Return what a dataset file with a case's values describes; only what its strategy reads is given."""
    mode, option = case["mode"], OPTIONS.get(case["mode"])
    values = {"video_directory": "clips", "caption_extension": ".txt", "frame_extraction": mode}
    if mode != "full":
        values |= {"target_frames": case["target_frames"]}
    if option is not None:
        values |= {option[0]: case[option[1]]}
    if case["source_fps"] is not None:
        values |= {"source_fps": case["source_fps"]}
    (table,) = compat.parse({"datasets": [values]}, architecture=case["arch"])
    fps = TARGET_FPS.get(case["arch"])
    return table.dataset(Geometry(video=False) if fps is None else Geometry(fps=fps))


def _defect(case: dict[str, Any]) -> str | None:
    """Return which defect of the reference a case encodes; each of these is refused by name here."""
    mode, lengths = case["mode"], case["effective_target_frames"]
    if case["arch"] not in TARGET_FPS:
        return "a defect of the reference: clips of a picture model end in an error without advice"
    if mode not in MODES:
        return "a defect of the reference: a strategy that there is not is told at the first clip only"
    if mode in OPTIONS and case[OPTIONS[mode][1]] < 1:
        return "a defect of the reference: options below 1 crash it or give no window in silence"
    if mode != "full" and not all(length >= 1 for length in lengths or [0]):
        return "a defect of the reference: no lengths and lengths below 1 crash it or give windows of no frames"
    return None


@pytest.mark.parametrize(
    "case",
    vector_cases("data_frame_windows"),
    ids=lambda c: f"{c['mode']}-{c['n']}-{c['target_frames']}-{c['arch']}-{c['source_fps']}",
)
def test_data_frame_windows(case: dict[str, Any]) -> None:
    defect = _defect(case)
    if defect is not None:
        with pytest.raises(ConfigError):
            _dataset(case)
        pytest.skip(defect)
    dataset = _dataset(case)
    clip = Probe(kind="video", size=(32, 32), frames=case["n"])

    frames = dataset.rate.frames(clip, fps=dataset.geometry.fps)
    windows = dataset.windows.cut(len(frames), dataset.frames, step=dataset.geometry.frame_step)

    if case["mode"] != "full":
        assert set(dataset.frames) == set(case["effective_target_frames"])
    # Lengths that round to the same value, and places of `uniform` that coincide, are emitted several times by v0.2.13.
    theirs = [Window(*window) for window in case["windows"]]
    assert [window for window in windows if window in theirs] == list(dict.fromkeys(theirs))
    shown = [(frames[window.start], frames[window.start + window.count - 1]) for window in theirs]
    assert shown == list(zip(case["first_source_frame"], case["last_source_frame"], strict=True))
    assert _shortened([_name(case, window) for window in theirs], like=case["cache_names"]) == case["cache_names"]
    slower = case["source_fps"] is not None and case["source_fps"] < TARGET_FPS[case["arch"]]
    if slower and case["effective_mode"] == "head" and set(windows) - set(theirs):
        pytest.skip("a defect of the reference: of a slower source too few frames are read for all windows")
    assert set(windows) == set(theirs)


def _name(case: dict[str, Any], window: Window) -> str:
    return latent_label(f"clip_{case['n']:04d}", size=(32, 32), suffix=case["arch"], window=window) + SUFFIX


def _shortened(names: list[str], *, like: list[str]) -> list[str]:
    """Leave out those in the middle where the file does: ``[first, ..., last]``."""
    if "..." not in like:
        return names
    first, last = like.index("..."), len(like) - like.index("...") - 1
    return [*names[:first], "...", *names[len(names) - last :]]
