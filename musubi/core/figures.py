"""Empty matplotlib figures that notebooks show, and what to install where there is no matplotlib."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from musubi.core.errors import ConfigError, Issue

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float = 8.0, height: float = 5.0) -> Figure:
    """Return an empty figure of a size in inches; as the last value of a notebook's cell it is shown.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        hint = 'pip install "musubi-trainer[plots]"'
        raise ConfigError("cannot draw", [Issue("matplotlib", "is not installed", hint)]) from error

    class NotebookFigure(Figure):
        """A figure that needs neither pyplot nor its global list of figures to be shown."""

        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=90)
            return buffer.getvalue()

    return NotebookFigure(figsize=(width, height), layout="constrained")
