from __future__ import annotations

import sys

import pytest

from musubi.core.errors import ConfigError
from musubi.core.figures import new_figure


def test_a_figure_has_the_size_asked_for() -> None:
    assert tuple(new_figure(3.0, 2.0).get_size_inches()) == (3.0, 2.0)


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    with pytest.raises(ConfigError, match=r"musubi-trainer\[plots\]"):
        new_figure()


def test_a_notebook_gets_a_picture() -> None:
    display = getattr(new_figure(), "_repr_png_")  # noqa: B009 - IPython looks it up like this

    assert display().startswith(b"\x89PNG")
