"""What to generate: a request with gaps, and the job it becomes for one model."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Literal

import attrs

from musubi.architecture import Architecture, Geometry, Size
from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import at_least, count, field, one_of, optional, positive
from musubi.core.spec import Spec
from musubi.noise.guidance import ClassifierFree, Guidance


@attrs.frozen
class Request(Spec):
    """Ask for one picture or clip; what is None takes the model's own default.

    ``size`` is (width, height) in pixels. ``guidance`` is the scale of classifier-free guidance (1.0: no negative pass)
    or any other rule. ``shift`` takes the place of the sampler's own: above 1 more steps are spent at high noise. A
    ``seed`` of None draws one, which the result's metadata tells. A size or a number of frames that the model cannot
    make is refused, or rounded with ``fit="nearest"``.

    Example:
        >>> from musubi.inference.request import Request
        >>> Request("a clay fox", size=(832, 480), frames=81, seed=7).frames
        81
    """

    prompt: str
    negative: str | None = attrs.field(default=None, kw_only=True)
    size: tuple[int, int] | None = attrs.field(default=None, kw_only=True)
    frames: int | None = field(default=None, check=optional(count()), kw_only=True)
    steps: int | None = field(default=None, check=optional(count()), kw_only=True)
    guidance: float | Guidance | None = attrs.field(default=None, kw_only=True)
    shift: float | None = field(default=None, check=optional(positive), kw_only=True)
    fps: float | None = field(default=None, check=optional(positive), kw_only=True)
    seed: int | None = field(default=0, check=optional(count(0)), kw_only=True)
    fit: Literal["exact", "nearest"] = field(default="exact", check=one_of("exact", "nearest"), kw_only=True)

    def problems(self) -> Iterable[Issue]:
        """Yield what is wrong with the guidance and the size."""
        problem = None if self.guidance is None or isinstance(self.guidance, Guidance) else at_least(0)(self.guidance)
        if problem is not None:
            yield Issue("guidance", problem)
        if self.size is not None and min(self.size) < 1:
            yield Issue("size", f"must be two whole numbers of at least 1, got {self.size!r}")

    def job(self, model: Architecture) -> Job:
        """Return the request with nothing left open.

        Raises:
            ConfigError: The model cannot make this size or number of frames; every problem is listed.
        """
        usual, geometry = model.generation, model.geometry
        size, frames = self.size or usual.size, self.frames or usual.frames
        if self.fit == "nearest":
            size, frames = nearest_size(geometry, size), nearest_frames(geometry, frames)
        issues = [*geometry.size_issues(size), *geometry.frame_issues(frames)]
        if issues:
            raise ConfigError("request", [_with_way_out(issue) for issue in issues])
        return Job(
            prompt=self.prompt,
            negative=usual.negative if self.negative is None else self.negative,
            size=size,
            frames=frames,
            steps=self.steps or usual.steps,
            guidance=_rule(usual.guidance if self.guidance is None else self.guidance),
            shift=self.shift,
            fps=self.fps or usual.fps,
            seed=secrets.randbelow(2**31) if self.seed is None else self.seed,
        )


@attrs.frozen(kw_only=True)
class Job:
    """A request that fits its model, complete; a ``shift`` of None is the sampler's own."""

    prompt: str
    negative: str
    size: Size
    frames: int
    steps: int
    guidance: Guidance
    shift: float | None = None
    fps: float
    seed: int

    @property
    def texts(self) -> tuple[str, ...]:
        """What must be encoded: the prompt, and the negative one where the guidance uses it."""
        return (self.prompt, self.negative) if self.guidance.uses_negative else (self.prompt,)

    @property
    def metadata(self) -> Mapping[str, str]:
        """What a file of the result says about itself."""
        facts = {"prompt": self.prompt, "seed": str(self.seed), "steps": str(self.steps)}
        facts["size"] = f"{self.size[0]}x{self.size[1]}"
        facts["guidance"] = f"{getattr(self.guidance, 'scale', self.guidance.kind)}"
        if self.shift is not None:
            facts["shift"] = f"{self.shift:g}"
        return {**facts, "negative_prompt": self.negative} if self.guidance.uses_negative else facts


def nearest_size(geometry: Geometry, size: Size) -> Size:
    """Return the legal size nearest to ``size``, side by side."""
    low, high = geometry.nearest(size, up=False), geometry.nearest(size, up=True)
    width, height = (a if side - a < b - side else b for side, a, b in zip(size, low, high, strict=True))
    return width, height


def nearest_frames(geometry: Geometry, frames: int) -> int:
    """Return the legal number of frames nearest to ``frames``."""
    return 1 + geometry.frame_step * round((frames - 1) / geometry.frame_step) if geometry.video else 1


def _rule(guidance: float | Guidance) -> Guidance:
    return guidance if isinstance(guidance, Guidance) else ClassifierFree(scale=float(guidance))


def _with_way_out(issue: Issue) -> Issue:
    rounding = 'or fit="nearest"'
    return attrs.evolve(issue, hint=f"{issue.hint}, {rounding}" if issue.hint else rounding)
