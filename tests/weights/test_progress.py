from __future__ import annotations

import pytest

from musubi.weights import progress
from musubi.weights.progress import loading, silent


def _load(*sizes: int) -> None:
    with loading("model.safetensors", sum(sizes)) as came:
        for size in sizes:
            came(size)


def test_a_short_load_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    _load(5, 5)

    assert capsys.readouterr().err == ""


def test_a_long_load_shows_a_bar_over_its_bytes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_PATIENCE_S", -1.0)

    _load(2_000_000, 2_000_000)

    told = capsys.readouterr().err
    assert "loading model.safetensors" in told
    assert "4.00M" in told


def test_a_silent_load_shows_nothing_however_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_PATIENCE_S", -1.0)

    with silent():
        _load(5, 5)
    quiet = capsys.readouterr().err
    _load(5, 5)

    assert quiet == ""
    assert "loading" in capsys.readouterr().err


def _interrupted_load() -> None:
    with loading("m", 10) as came:
        came(5)
        raise KeyboardInterrupt


def test_an_interrupted_load_takes_its_bar_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_PATIENCE_S", -1.0)

    with pytest.raises(KeyboardInterrupt):
        _interrupted_load()

    assert capsys.readouterr().err.endswith("\r")
