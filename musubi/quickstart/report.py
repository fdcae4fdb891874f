"""Write what the quickstart shows: the loss curve and the before/after picture."""

from __future__ import annotations

from pathlib import Path

from musubi.core import atomic
from musubi.quickstart import concept
from musubi.quickstart.demo import Demo
from musubi.quickstart.picture import before_after
from musubi.quickstart.shapes import Jitter


def write_report(made: Demo, out: Path) -> tuple[Path, ...]:
    """Write ``loss.png`` and ``before_after.png`` to ``out`` and return all files worth opening."""
    comparison = made.comparison
    picture = before_after(
        out / "before_after.png",
        prompts=comparison.prompts,
        before=comparison.before,
        after=comparison.after,
        example=concept.picture(concept.scenes(count=1)[0], Jitter()),
        score=str(comparison),
    )
    with atomic.replacing(out / "loss.png") as temporary:
        made.result.plot_loss().savefig(temporary, format="png", dpi=110)
    return picture, out / "loss.png", made.result.path, out / "samples"
