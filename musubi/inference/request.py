"""What to generate: a request with gaps, and the job it becomes for one model."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import attrs

from musubi.architecture import Architecture, Geometry, Size
from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import accepting, at_least, count, field, one_of, optional, positive
from musubi.core.spec import Spec
from musubi.data.control_size import ControlSize
from musubi.inference.given import Given
from musubi.inference.single_frame import SingleFrame
from musubi.inference.sources import Source, as_source, as_sources
from musubi.noise.embedded import Embedded
from musubi.noise.guidance import ClassifierFree, Guidance

_FROM_FILE: Mapping[str, Any] = MappingProxyType(accepting(Path | None))
_IN_MEMORY = "what lies in memory cannot be written into a configuration"


def _strength(value: object) -> str | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1
    return None if good else f"must be a number above 0 and at most 1, got {value!r}"


@attrs.frozen
class Request(Spec):
    """Ask for one picture or clip; what is None takes the model's own default.

    ``size`` is (width, height) in pixels. ``guidance`` is the scale of classifier-free guidance (1.0: no negative pass)
    or any other rule. ``shift`` takes the place of the sampler's own: above 1 more steps are spent at high noise. A
    ``seed`` of None draws one, which the result's metadata tells. A size or a number of frames that the model cannot
    make is refused, or rounded with ``fit="nearest"``.

    What a model can look at beside the prompt: ``image``, the first picture of a clip, ``last``, its last one,
    ``control``, pictures or a clip to follow or change, and ``video``, a clip that is changed: noise takes the place
    of ``strength`` of it (1.0: of all). Each is a path, a Pillow image, or frames as an array; of clips as many frames
    are read as the result has. The size is what ``size`` says, whatever theirs is: they are scaled to cover it and
    cropped.
    Where a model takes pictures in sizes of their own, ``control_size`` says at which those in ``control`` are shown:
    ``OwnSize()``, ``NearArea(...)``, ``FixedSize(...)`` or ``LikeTarget()``; None is the model's own rule.
    ``single_frame`` says where in time a single picture lies. ``trim_tail`` frames at the end of a clip are dropped.

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
    image: Source | None = attrs.field(default=None, converter=as_source, metadata=_FROM_FILE, kw_only=True)
    last: Source | None = attrs.field(default=None, converter=as_source, metadata=_FROM_FILE, kw_only=True)
    control: tuple[Source, ...] = attrs.field(
        default=(), converter=as_sources, metadata=accepting(Path | tuple[Path, ...]), kw_only=True
    )
    control_size: ControlSize | None = attrs.field(default=None, kw_only=True)
    video: Source | None = attrs.field(default=None, converter=as_source, metadata=_FROM_FILE, kw_only=True)
    strength: float = field(default=0.8, check=_strength, kw_only=True)
    trim_tail: int = field(default=0, check=count(0), kw_only=True)
    single_frame: SingleFrame | None = attrs.field(default=None, kw_only=True)

    def problems(self) -> Iterable[Issue]:
        """Yield what is wrong with the guidance, the size, and a single frame."""
        problem = None if self.guidance is None or isinstance(self.guidance, Guidance) else at_least(0)(self.guidance)
        if problem is not None:
            yield Issue("guidance", problem)
        if self.size is not None and min(self.size) < 1:
            yield Issue("size", f"must be two whole numbers of at least 1, got {self.size!r}")
        if self.single_frame is not None:
            given, wanted = len(self.control), len(self.single_frame.controls)
            if given != wanted:
                yield Issue("control", f"has {given} pictures, single_frame places for {wanted}", "give one for each")

    @property
    def given(self) -> Given:
        """The pictures and clips for the model to look at."""
        return Given(image=self.image, last=self.last, control=self.control, video=self.video)

    def job(self, model: Architecture, *, planned: bool = False) -> Job:
        """Return the request with nothing left open.

        Args:
            model: What is to make it.
            planned: Only its need is asked for: pictures and clips may be missing.

        Raises:
            ConfigError: The model cannot make this size or number of frames, lacks a picture or clip, or has no use for
                one; every problem is listed.
        """
        model = _placed(model, self.single_frame)
        usual, geometry, single = model.generation, model.geometry, model.target_position is not None
        size, frames = self.size or usual.size, self.frames or (1 if single else usual.frames)
        if self.fit == "nearest":
            size, frames = nearest_size(geometry, size), nearest_frames(geometry, frames)
        issues = [_with_way_out(issue) for issue in (*geometry.size_issues(size), *geometry.frame_issues(frames))]
        if single and frames != 1:
            issues.append(Issue("frames", f"must be 1, the single picture, got {frames}", "leave it out"))
        if self.trim_tail >= frames:
            issues.append(Issue("trim_tail", f"drops {self.trim_tail} of {frames} frames", "keep at least one"))
        steps = self.steps or usual.steps
        if self.video is not None and int(steps * self.strength) < 1:
            issues.append(Issue("strength", f"{self.strength:g} of {steps} steps is none", "ask for more steps"))
        rule = _rule(usual.guidance, self.guidance)
        known = rule.misfits(experts=[expert.name for expert in model.experts], blocks=model.layout.count)
        issues += [issue.under("guidance") for issue in known]
        issues += self._unused(model, rule)
        if not planned:
            issues += self.given.issues(model.request_roles, model.title)
        if issues:
            raise ConfigError("request", issues)
        return Job(
            prompt=self.prompt,
            negative=usual.negative if self.negative is None else self.negative,
            size=size,
            frames=frames,
            steps=steps,
            guidance=rule,
            shift=self.shift,
            fps=self.fps or usual.fps,
            seed=secrets.randbelow(2**31) if self.seed is None else self.seed,
            given=self.given,
            control_size=self.control_size,
            strength=self.strength,
            trim_tail=self.trim_tail,
            single_frame=self.single_frame,
        )

    def _unused(self, model: Architecture, rule: Guidance) -> Iterator[Issue]:
        """Yield what is asked for in vain."""
        if rule.embedded is not None and _rule(model.generation.guidance).embedded is None:
            hint = "for classifier-free guidance give a number or ClassifierFree(scale=...)"
            yield Issue("guidance", f"{model.title} has no guidance as an input", hint)
        if self.control_size is not None and not model.sizes_controls:
            yield Issue("control_size", f"{model.title} shows all pictures at the size of the result", "leave it out")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values.

        Raises:
            ConfigError: A picture or clip lies in memory only.
        """
        held = [Issue(role, _IN_MEMORY, "save it, and give its path") for role in self.given.in_memory]
        if held:
            raise ConfigError("Request", held)
        return super().to_dict()


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
    given: Given = attrs.field(factory=Given)
    control_size: ControlSize | None = None
    strength: float = 1.0
    trim_tail: int = 0
    single_frame: SingleFrame | None = None

    def model(self, model: Architecture) -> Architecture:
        """Return the model this is a job for, its single picture at the place that the job says."""
        return _placed(model, self.single_frame)

    @property
    def steps_taken(self) -> int:
        """How many steps are taken: of a clip that is changed, the last ones."""
        return self.steps if self.given.video is None else int(self.steps * self.strength)

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
        if self.control_size is not None:
            facts["control_size"] = f"{self.control_size}"
        if self.shift is not None:
            facts["shift"] = f"{self.shift:g}"
        facts |= self.given.metadata
        if self.given.video is not None:
            facts["strength"] = f"{self.strength:g}"
        if self.trim_tail:
            facts["trim_tail"] = f"{self.trim_tail}"
        if self.single_frame is not None:
            facts["single_frame"] = f"{self.single_frame}"
        return {**facts, "negative_prompt": self.negative} if self.guidance.uses_negative else facts


def nearest_size(geometry: Geometry, size: Size) -> Size:
    """Return the legal size nearest to ``size``, side by side."""
    low, high = geometry.nearest(size, up=False), geometry.nearest(size, up=True)
    width, height = (a if side - a < b - side else b for side, a, b in zip(size, low, high, strict=True))
    return width, height


def nearest_frames(geometry: Geometry, frames: int) -> int:
    """Return the legal number of frames nearest to ``frames``."""
    return 1 + geometry.frame_step * round((frames - 1) / geometry.frame_step) if geometry.video else 1


def _placed(model: Architecture, places: SingleFrame | None) -> Architecture:
    return model if places is None else model.at_positions(places.target, places.controls)


def _rule(usual: float | Guidance, asked: float | Guidance | None = None) -> Guidance:
    """Return the rule that is asked for; a number is a scale for the model's own kind of rule, where that has one."""
    rule = usual if isinstance(usual, Guidance) else ClassifierFree(scale=float(usual))
    if asked is None:
        return rule
    if isinstance(asked, Guidance):
        return asked
    scaled = isinstance(rule, ClassifierFree | Embedded)
    return rule.replace(scale=float(asked)) if scaled else ClassifierFree(scale=float(asked))


def _with_way_out(issue: Issue) -> Issue:
    rounding = 'or fit="nearest"'
    return attrs.evolve(issue, hint=f"{issue.hint}, {rounding}" if issue.hint else rounding)
