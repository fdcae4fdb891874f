"""Sample before and after with the same prompts and seeds, and count how often the creature is recognised."""

from __future__ import annotations

from pathlib import Path

import attrs
import numpy as np

from musubi import Image, Video, WanPipeline
from musubi.quickstart import concept
from musubi.quickstart.classifier import load_classifier, share_recognised
from musubi.quickstart.shapes import FRAMES, SIZE, Pixels

NEW = tuple(f"a big {concept.NAME} on a {colour} background" for colour in ("blue", "green", "yellow", "purple"))
KNOWN = "a big red house on a blue background"
CLIP = f"a {concept.NAME} moves to the right on a blue background"
_DRAWS = 4


@attrs.frozen(kw_only=True)
class Comparison:
    """What the same prompts and seeds give without and with the LoRA.

    ``before`` and ``after`` hold a picture of each of ``prompts``; the scores are shares, from 0 to 1, of all samples
    of the creature in which a small shape classifier, which knows it as one of its classes, sees the creature.
    """

    prompts: tuple[str, ...]
    before: tuple[Pixels, ...] = attrs.field(repr=False)
    after: tuple[Pixels, ...] = attrs.field(repr=False)
    score_before: float
    score_after: float
    different: bool

    def __str__(self) -> str:
        if not self.different:
            return "no difference: every picture and clip is the same, bit for bit, with and without the LoRA"
        before, after = f"{self.score_before:.0%}", f"{self.score_after:.0%}"
        return f"the classifier sees a {concept.NAME} in {before} of the samples before training, in {after} after"


def compare(base: WanPipeline, learned: WanPipeline, *, seed: int, folder: Path) -> Comparison:
    """Draw with both pipelines, save all of it, and score the pictures of the creature."""
    drawn = {name: draw(pipeline, seed=seed) for name, pipeline in (("before", base), ("after", learned))}
    for name, media in drawn.items():
        for i, picture_or_clip in enumerate(media):
            picture_or_clip.save(folder / f"{name}_{i:02d}{picture_or_clip.suffix}")
    before, after = ([media.to_numpy() for media in drawn[name]] for name in ("before", "after"))
    shown = len(NEW) + 1
    return Comparison(
        prompts=(*NEW, KNOWN),
        before=tuple(before[:shown]),
        after=tuple(after[:shown]),
        score_before=_score(before),
        score_after=_score(after),
        different=any(not np.array_equal(b, a) for b, a in zip(before, after, strict=True)),
    )


def draw(pipeline: WanPipeline, *, seed: int) -> list[Image | Video]:
    """Draw each prompt once, then the creature's with further seeds, then a clip."""
    wanted = [*((prompt, seed) for prompt in (*NEW, KNOWN)), *((p, seed + i) for i in range(1, _DRAWS) for p in NEW)]
    with pipeline.open(prompts=[*NEW, KNOWN, CLIP]) as session:
        media: list[Image | Video] = [
            session.generate(p, size=(SIZE, SIZE), frames=1, steps=20, guidance=4.0, seed=s, negative="")
            for p, s in wanted
        ]
        clip = session.generate(CLIP, size=(SIZE, SIZE), frames=FRAMES, steps=20, guidance=4.0, seed=seed, negative="")
    return [*media, clip]


def _score(drawn: list[Pixels]) -> float:
    creatures = np.stack([*drawn[: len(NEW)], *drawn[len(NEW) + 1 : -1]])
    return share_recognised(load_classifier(), creatures, [concept.NAME] * len(creatures))
