"""Sample before and after with the same prompts and seeds, and count how often the creature is recognised."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np

from musubi import WanPipeline
from musubi.inference.media import Image, Video
from musubi.quickstart import concept
from musubi.quickstart.classifier import CLASSES, load_classifier, probabilities
from musubi.quickstart.shapes import FRAMES, SIZE, Pixels

_STEPS, _GUIDANCE, _DRAWS = 20, 4.0, 2


@attrs.frozen(kw_only=True)
class Comparison:
    """Pictures of the same prompts and seeds without and with the LoRA, and how often each shows the creature."""

    prompts: tuple[str, ...]
    before: tuple[Pixels, ...] = attrs.field(repr=False)
    after: tuple[Pixels, ...] = attrs.field(repr=False)
    score_before: float
    score_after: float

    @property
    def different(self) -> bool:
        """Whether the LoRA changed any picture at all."""
        return any(not np.array_equal(b, a) for b, a in zip(self.before, self.after, strict=True))

    def __str__(self) -> str:
        if not self.different:
            return "no difference: every picture is the same, bit for bit, with and without the LoRA"
        return (
            f"{concept.NAME} recognised in {self.score_before:.0%} of the samples before, {self.score_after:.0%} after"
        )


def compare(base: WanPipeline, learned: WanPipeline, *, prompts: Sequence[str], seed: int, folder: Path) -> Comparison:
    """Draw every prompt a few times and one clip with both pipelines, save all of it, and score the pictures.

    The score is the probability that a small shape classifier, which knows the creature as one of its classes, gives
    to the creature, averaged over all pictures.
    """
    before, after = (draw(pipeline, prompts=prompts, seed=seed) for pipeline in (base, learned))
    for name, drawn in {"before": before, "after": after}.items():
        for i, media in enumerate(drawn):
            media.save(folder / f"{name}_{i:02d}{media.suffix}")
    pictures = [[m.to_numpy() for m in drawn if isinstance(m, Image)] for drawn in (before, after)]
    return Comparison(
        prompts=tuple(prompts),
        before=tuple(pictures[0]),
        after=tuple(pictures[1]),
        score_before=_score(pictures[0]),
        score_after=_score(pictures[1]),
    )


def draw(pipeline: WanPipeline, *, prompts: Sequence[str], seed: int) -> list[Image | Video]:
    """Draw each prompt with ``_DRAWS`` seeds as a picture, and the first as a clip."""
    with pipeline.open() as session:
        drawn: list[Image | Video] = [
            session.generate(
                p, size=(SIZE, SIZE), frames=1, steps=_STEPS, guidance=_GUIDANCE, seed=seed + i, negative=""
            )
            for i in range(_DRAWS)
            for p in prompts
        ]
        clip = f"a {concept.NAME} moves to the right on a blue background"
        moving = session.generate(
            clip, size=(SIZE, SIZE), frames=FRAMES, steps=_STEPS, guidance=_GUIDANCE, seed=seed, negative=""
        )
    return [*drawn, moving]


def _score(pictures: Sequence[Pixels]) -> float:
    index = CLASSES.index(concept.NAME)
    return float(probabilities(load_classifier(), np.stack(pictures))[:, index].mean())
