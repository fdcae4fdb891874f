"""Single frames: pictures from a video model, each at a chosen place in time."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Self

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import count, did_you_mean, each, field
from musubi.core.spec import Spec

_WORDS = ("target_index", "control_index")


@attrs.frozen(kw_only=True)
class SingleFrame(Spec):
    """Where in time, in latent frames, the picture to make lies, and where each control picture, in their order.

    Example:
        >>> from musubi import SingleFrame
        >>> SingleFrame.parse("target_index=1,control_index=0;2")
        SingleFrame(target=1, controls=(0, 2))
    """

    target: int = field(default=0, check=count(0))
    controls: tuple[int, ...] = field(default=(), check=each(count(0)))

    def problems(self) -> Iterable[Issue]:
        """Yield places that are taken twice."""
        if self.target in self.controls:
            hint = "give the picture to make a place of its own"
            yield Issue("target", f"{self.target} is the place of a control picture", hint)
        if len(set(self.controls)) < len(self.controls):
            yield Issue("controls", f"hold a place twice: {', '.join(map(str, self.controls))}")

    @property
    def positions(self) -> tuple[int, ...]:
        """All places in ascending order: the order of the frames in the latents."""
        return tuple(sorted((self.target, *self.controls)))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read musubi-tuner's form, e.g. ``target_index=1,control_index=0;2``; ``default`` alone says nothing.

        Raises:
            ConfigError: A word is unknown or malformed; every problem is listed.
        """
        values: dict[str, tuple[int, ...]] = {}
        issues: list[Issue] = []
        for part in (part.strip() for part in text.split(",")):
            name, _, rest = (piece.strip() for piece in part.partition("="))
            numbers = [number.strip() for number in rest.split(";")]
            if part == "default":
                continue
            if name not in _WORDS:
                hint = f"known are {', '.join(_WORDS)}, default"
                issues.append(Issue(name or "one_frame", f"means nothing here{did_you_mean(name, _WORDS)}", hint))
            elif not all(re.fullmatch(r"\d+", number, re.ASCII) for number in numbers):
                issues.append(Issue(name, f"must be whole numbers, as in {name}=1, got {rest!r}"))
            elif name in values or (name == _WORDS[0] and len(numbers) > 1):
                issues.append(Issue(name, "is given twice", "keep one of them"))
            else:
                values[name] = tuple(map(int, numbers))
        if issues:
            raise ConfigError("one_frame", issues)
        return cls(target=values.get(_WORDS[0], (0,))[0], controls=values.get(_WORDS[1], ()))

    def __str__(self) -> str:
        """Return musubi-tuner's form."""
        controls = ";".join(map(str, self.controls))
        return f"{_WORDS[0]}={self.target}" + (f",{_WORDS[1]}={controls}" if controls else "")
