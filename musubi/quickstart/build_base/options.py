"""Hold what the command line says."""

from __future__ import annotations

from pathlib import Path

import attrs


@attrs.frozen(kw_only=True)
class Options:
    """Say where and how to train; `steps` and `rate` replace a stage's own when given."""

    out: Path
    device: str = "cpu"
    seed: int = 0
    processes: int = 2
    steps: int | None = None
    rate: float | None = None
