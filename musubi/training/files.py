"""The names of what a run writes, as the reference's: ``lora-step00000500.safetensors``, ``lora-000002-state``, ...

Source: the reference's ``train_utils.py``; the best by validation is ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import attrs

from musubi.core.errors import Issue

When = Literal["step", "epoch", "last", "best"]
_WEIGHTS, _STATE = ".safetensors", "-state"
_NUMBERED = r"-(?P<epoch>0\d{5})|-step(?P<step>\d{8,})"
"""Six digits that do not begin with 0 are a date that somebody put into a name, rather than the 100,000th epoch."""

_ENDING = re.compile(rf"(?:{_NUMBERED}|(?P<best>-best)|)(?P<what>\.safetensors|-state)")
_TAKEN = re.compile(rf".*?(?P<ending>{_NUMBERED}|-best|-state)")


@attrs.frozen(kw_only=True)
class Written:
    """What a file or state folder of a run holds: weights or a state, and when they were written.

    ``number`` is the step, or the epoch counted from 1; what comes last, or was best, has none.

    Example:
        >>> from musubi.training.files import Written
        >>> Written(when="epoch", number=2).of("lora")
        'lora-000002.safetensors'
        >>> Written(when="step", number=500, state=True).of("lora")
        'lora-step00000500-state'
    """

    when: When = "last"
    number: int = 0
    state: bool = False

    def of(self, name: str) -> str:
        """Return the file's or folder's name in a run called ``name``."""
        between = {"step": f"-step{self.number:08d}", "epoch": f"-{self.number:06d}", "best": "-best", "last": ""}
        return f"{name}{between[self.when]}{_STATE if self.state else _WEIGHTS}"

    def path(self, output: Path, name: str) -> Path:
        """Return where it lies in the folder that a run called ``name`` writes to."""
        return output / self.of(name)


def parsed(file: str, name: str) -> Written | None:
    """Return what a file or folder is to the run called exactly ``name``; None if it is none of its.

    Example:
        >>> from musubi.training.files import parsed
        >>> parsed("lora-step00000500-state", "lora")
        Written(when='step', number=500, state=True)
        >>> parsed("lora-v2-000002.safetensors", "lora") is None
        True
    """
    found = _ENDING.fullmatch(file.removeprefix(name)) if file.startswith(name) else None
    if found is None:
        return None
    when: When = "epoch" if found["epoch"] else "step" if found["step"] else "best" if found["best"] else "last"
    number = int(found["epoch"] or found["step"] or 0)
    written = Written(when=when, number=number, state=found["what"] == _STATE)
    return written if written.of(name) == file else None  # "lora-step0000000002" is nothing that a run writes


def present(output: Path, name: str) -> Iterator[tuple[Path, Written]]:
    """Yield the files and state folders of the run called ``name`` that ``output`` holds."""
    for path in output.iterdir() if output.is_dir() else ():
        written = parsed(path.name, name)
        if written is not None and path.is_dir() == written.state:
            yield path, written


def name_issue(name: str) -> Issue | None:
    """Return what is wrong with a run's name that would make its files look like those of another run.

    The last file of a run called ``lora-000002`` would be taken for one of a run called ``lora``, and cleared away.
    """
    found = _TAKEN.fullmatch(name)
    if found is None:
        return None
    hint = f"e.g. {name.removesuffix(found['ending']) or 'lora'}-v2"
    message = f"must not end in {found['ending']!r}, which files of another run may have, got {name!r}"
    return Issue("name", message, hint)
