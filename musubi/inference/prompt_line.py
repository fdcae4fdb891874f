"""One line of a prompt file, ``a clay fox --w 832 --h 480 --d 7``, as a value: musubi-tuner's syntax, read strictly."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import accepting, at_least, count, did_you_mean, field, optional, positive
from musubi.core.spec import Spec
from musubi.inference.request import Request
from musubi.inference.single_frame import SingleFrame
from musubi.noise.embedded import Embedded

_SEPARATOR = " --"
_CLOSED = "a prompt with two dashes after a blank goes into a .toml or .json file"


def _listed(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the paths of a list, or of a single one."""
    return (value,) if isinstance(value, str) else tuple(value or ())


@attrs.frozen
class PromptLine(Spec):
    """Everything that a prompt file can say about one picture or clip; fields are called as in TOML and JSON files.

    Args:
        prompt: What to show.
        width: In pixels; needs ``height``.
        height: In pixels; needs ``width``.
        frame_count: How many frames.
        seed: The noise.
        sample_steps: How many steps the sampler takes.
        guidance_scale: The guidance that some models have as an input.
        discrete_flow_shift: The shift of the sampler.
        cfg_scale: The scale of classifier-free guidance.
        negative_prompt: What not to show.
        image_path: A picture that the clip begins with.
        end_image_path: A picture that the clip ends with.
        control_video_path: A clip that the model follows.
        control_image_path: Pictures that the model edits or follows.
        one_frame: Where in time single pictures lie, e.g. ``target_index=1,control_index=0``.

    Example:
        >>> from musubi.inference.prompt_line import PromptLine
        >>> line = PromptLine.parse("a clay fox --w 832 --h 480 --f 81 --l 5")
        >>> line.request().size
        (832, 480)
    """

    prompt: str
    width: int | None = field(default=None, check=optional(count()), kw_only=True)
    height: int | None = field(default=None, check=optional(count()), kw_only=True)
    frame_count: int | None = field(default=None, check=optional(count()), kw_only=True)
    seed: int | None = field(default=None, check=optional(count(0)), kw_only=True)
    sample_steps: int | None = field(default=None, check=optional(count()), kw_only=True)
    guidance_scale: float | None = field(default=None, check=optional(at_least(0)), kw_only=True)
    discrete_flow_shift: float | None = field(default=None, check=optional(positive), kw_only=True)
    cfg_scale: float | None = field(default=None, check=optional(at_least(0)), kw_only=True)
    negative_prompt: str | None = attrs.field(default=None, kw_only=True)
    image_path: str | None = attrs.field(default=None, kw_only=True)
    end_image_path: str | None = attrs.field(default=None, kw_only=True)
    control_video_path: str | None = attrs.field(default=None, kw_only=True)
    control_image_path: tuple[str, ...] = attrs.field(
        default=(), converter=_listed, metadata=accepting(str | tuple[str, ...]), kw_only=True
    )
    one_frame: str | None = attrs.field(default=None, kw_only=True)

    @classmethod
    def parse(cls, text: str) -> PromptLine:
        """Read a line: the prompt, then options, each after a blank and two dashes; upper or lower case.

        ``--n`` alone asks for an empty negative prompt. ``--ci`` may be repeated.

        Raises:
            ConfigError: An option is unknown, malformed or given twice; every problem is listed under its name.
        """
        prompt, *options = text.split(_SEPARATOR)
        values, issues = _read(options)
        if not issues:
            try:
                return cls(prompt=prompt.strip(), **values)
            except ConfigError as error:
                issues = [attrs.evolve(issue, path=_named(issue.path)) for issue in error.issues]
        raise ConfigError("prompt", issues)

    def request(self) -> Request:
        """Return what the line asks for.

        Raises:
            ConfigError: It has one side of a size only, something that does not go together, or something that
                generating here cannot do yet.
        """
        issues = list(self._beyond())
        if issues:
            raise ConfigError("prompt", issues)
        size = (self.width, self.height) if self.width is not None and self.height is not None else None
        said = {
            "size": size,
            "frames": self.frame_count,
            "steps": self.sample_steps,
            "guidance": self._guidance,
            "shift": self.discrete_flow_shift,
            "negative": self.negative_prompt,
            "seed": self.seed,
            "image": self.image_path,
            "last": self.end_image_path,
            "control": self.control_image_path or self.control_video_path,
            "single_frame": None if self.one_frame is None else SingleFrame.parse(self.one_frame),
        }
        given: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
        return Request(self.prompt, **given)

    @property
    def _guidance(self) -> float | Embedded | None:
        if self.guidance_scale is None:
            return self.cfg_scale
        return Embedded(scale=self.guidance_scale, classifier_free=1.0 if self.cfg_scale is None else self.cfg_scale)

    def _beyond(self) -> Iterator[Issue]:
        for given, missing in (("width", "height"), ("height", "width")):
            if getattr(self, given) is not None and getattr(self, missing) is None:
                yield Issue(given, f"needs a {missing}", "give both, or neither for the size of the training data")
        if self.control_video_path and self.control_image_path:
            yield Issue("control_video_path", "goes not together with control_image_path", "keep one of them")
        if self.one_frame is not None:
            yield from self._single_frame_issues(self.one_frame)

    def _single_frame_issues(self, text: str) -> Iterator[Issue]:
        try:
            wanted = len(SingleFrame.parse(text).controls)
        except ConfigError as error:
            yield from (Issue("one_frame", f"{issue.path}: {issue.message}", issue.hint) for issue in error.issues)
            return
        given = len(self.control_image_path)
        if given != wanted:
            yield Issue("one_frame", f"places {wanted} control pictures, {given} are given", "give a place for each")


def _words(text: str) -> str:
    return text.strip()


def _path(text: str) -> str:
    if not text.strip():
        raise ValueError("a path")
    return text.strip()


def _whole(text: str) -> int:
    if not re.fullmatch(r"\d+", text.strip(), re.ASCII):
        raise ValueError("a whole number")
    return int(text)


def _number(text: str) -> float:
    if not re.fullmatch(r"\d+\.?\d*|\.\d+", text.strip(), re.ASCII):
        raise ValueError("a number")
    return float(text)


@attrs.frozen
class _Option:
    """What an option is called in files of tables, and how its text is read."""

    key: str
    read: Callable[[str], object]


_OPTIONS: Mapping[str, _Option] = MappingProxyType(
    {
        "w": _Option("width", _whole),
        "h": _Option("height", _whole),
        "f": _Option("frame_count", _whole),
        "d": _Option("seed", _whole),
        "s": _Option("sample_steps", _whole),
        "g": _Option("guidance_scale", _number),
        "fs": _Option("discrete_flow_shift", _number),
        "l": _Option("cfg_scale", _number),
        "n": _Option("negative_prompt", _words),
        "i": _Option("image_path", _path),
        "ei": _Option("end_image_path", _path),
        "cn": _Option("control_video_path", _path),
        "ci": _Option("control_image_path", _path),
        "of": _Option("one_frame", _path),
    }
)
_REPEATED = "control_image_path"


def option_of(key: str) -> str:
    """Return how a line writes what files of tables call ``key``: ``--w`` for ``width``; other keys as they are."""
    return next((f"--{name}" for name, option in _OPTIONS.items() if option.key == key), key)


def _named(path: str) -> str:
    return option_of(path.partition("[")[0])


def _read(options: Iterable[str]) -> tuple[dict[str, Any], list[Issue]]:
    """Return the values of options by key, and what is wrong with the others."""
    values: dict[str, Any] = {}
    issues: list[Issue] = []
    for text in options:
        name, _, rest = text.partition(" ")
        option = _OPTIONS.get(name.lower())
        if option is None:
            issues.append(_unknown(name))
        elif option.key in values and option.key != _REPEATED:
            issues.append(Issue(f"--{name}", "is given twice", "keep one of them"))
        else:
            issues += _add(values, option, f"--{name}", rest)
    return values, issues


def _add(values: dict[str, Any], option: _Option, name: str, text: str) -> list[Issue]:
    try:
        value = option.read(text)
    except ValueError as error:
        return [Issue(name, f"must be {error}, got {text.strip()!r}")]
    if option.key == _REPEATED:
        value = (*cast(tuple[str, ...], values.get(_REPEATED, ())), value)
    values[option.key] = value
    return []


def _unknown(name: str) -> Issue:
    if not name:
        return Issue("--", "is not followed by an option", _CLOSED)
    known = ", ".join(f"--{option}" for option in _OPTIONS)
    return Issue(f"--{name}", f"is no option{did_you_mean(name.lower(), _OPTIONS)}", f"known are {known}; {_CLOSED}")
