"""The Wan part of the code that the design promises, word for word but for sizes, run on a tiny model."""

from __future__ import annotations

import inspect
import textwrap
from fractions import Fraction
from pathlib import Path

import av
import pytest

from musubi import Wan
from musubi.inference.media import Image, Video
from musubi.quickstart import concept
from musubi.testing.checkpoints import tiny_wan
from tests.typing import section_7

SMALLER = {
    "Wan.t2v_14b()": "tiny",
    "resolution=(832, 480)": "resolution=(64, 48)",
    "frames=(1, 25, 49)": "frames=(1, 5, 9)",
    "steps=1_600": "steps=3",
    "blocks=20": "blocks=1",
    "size=(832, 480), frames=81, steps=30": "size=(64, 48), frames=9, steps=2",
}


def words_of(function: object, *, begin: str = "", end: str = "") -> str:
    """Return a function's body between two of its lines, at the size of a tiny model."""
    source = inspect.getsource(function)  # type: ignore[arg-type]
    body = textwrap.dedent(source.partition(":\n")[2])
    body = begin + body.partition(begin)[2] if begin else body
    body = body.partition(end)[0] if end else body
    for large, small in SMALLER.items():
        body = body.replace(large, small)
    return body


def write_clips(folder: Path) -> None:
    for i, scene in enumerate(concept.scenes(count=3)):
        Image(concept.picture(scene)).save(folder / f"still_{i}.png")
        Video(concept.clip(scene, frames=9), fps=16).save(folder / f"clip_{i}.mp4")
        for name in (f"still_{i}", f"clip_{i}"):
            (folder / f"{name}.txt").write_text(scene.caption, encoding="utf-8")


def test_the_promised_code_trains_and_generates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_clips(tmp_path / "clips")
    weights = tiny_wan(tmp_path / "weights").weights
    names: dict[str, object] = {**vars(section_7), "tiny": Wan.t2v_14b().with_weights(**weights)}

    exec(words_of(section_7.first), names)
    exec(words_of(section_7.second, begin="video = (", end="hub.push"), names)

    assert "48x64x9" in capsys.readouterr().out
    assert (tmp_path / "clay_style.safetensors").is_file()
    with av.open(str(tmp_path / "fox.mp4")) as film:
        stream = film.streams.video[0]
        assert (stream.width, stream.height) == (64, 48)
        assert stream.average_rate == Fraction(16)
        assert len(list(film.decode(stream))) == 9
