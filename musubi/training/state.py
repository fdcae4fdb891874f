"""The state of a run on disk: a folder that is complete or absent, from which training continues bit for bit."""

from __future__ import annotations

import json
import pickle
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from musubi.core import atomic
from musubi.core.errors import ConfigError, Issue, shown
from musubi.core.events import Band, Validated
from musubi.training.files import parsed

FORMAT = 2
_PROGRESS, _OPTIMIZER, _HISTORY = "run.json", "optimizer.pt", "history.safetensors"
_TRAINED, _AVERAGES = "trained.safetensors", "averages.safetensors"

_UNFINISHED, _REPLACED = ".tmp", ".old"

_HINT = "give the -state folder of an earlier run, or start without resume"
_DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    SafetensorError,
    pickle.UnpicklingError,
)
"""What reading files of another kind, or parts of files, provokes."""


@attrs.frozen(kw_only=True)
class RunState:
    """All that a run needs in order to go on as if it had never stopped.

    ``taken`` counts the micro-batches of all processes, which says where the data and the random numbers go on.
    ``attempt`` is how often the run was rolled back, ``settings`` the trainer's values that must not change across a
    resume, ``data`` the cache's content hash, ``trained`` the parameters, ``averages`` their running averages (empty
    without), ``losses`` and ``rates`` one number for each step taken.
    """

    step: int
    taken: int
    attempt: int = 0
    settings: Mapping[str, Any]
    data: str
    trained: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    averages: Mapping[str, Tensor] = attrs.field(factory=dict)
    losses: tuple[float, ...]
    rates: tuple[float, ...]
    validations: tuple[Validated, ...] = ()

    def save(self, folder: Path) -> Path:
        """Write the state beside ``folder``, then put it in place in one step."""
        with atomic.writing(folder):
            temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}{_UNFINISHED}")
            temporary.mkdir(parents=True)
            try:
                self._write(temporary)
                _put_in_place(temporary, folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return folder

    def _write(self, folder: Path) -> None:
        save_file(_contiguous(self.trained), folder / _TRAINED)
        if self.averages:
            save_file(_contiguous(self.averages), folder / _AVERAGES)
        torch.save(dict(self.optimizer), folder / _OPTIMIZER)
        history = {"losses": self.losses, "rates": self.rates}
        save_file({n: torch.tensor(v, dtype=torch.float64) for n, v in history.items()}, folder / _HISTORY)
        progress = {
            "format": FORMAT,
            "step": self.step,
            "taken": self.taken,
            "attempt": self.attempt,
            "settings": self.settings,
            "data": self.data,
            "validations": [attrs.asdict(validated) for validated in self.validations],
            "saved_at": time.time(),
        }
        (folder / _PROGRESS).write_text(json.dumps(progress, indent=2, ensure_ascii=False), encoding="utf-8")
        ordinary = (folder / _PROGRESS).stat().st_mode  # safetensors narrows its files to their owner
        for file in folder.iterdir():
            file.chmod(ordinary)
            atomic.sync_file(file)
        atomic.sync_folder(folder)

    @classmethod
    def load(cls, folder: Path) -> RunState:
        """Read a state folder.

        Raises:
            ConfigError: It is not one, or it is damaged.
        """
        try:
            progress = json.loads((folder / _PROGRESS).read_text(encoding="utf-8"))
            if progress.get("format") != FORMAT:
                raise ConfigError("cannot resume", [Issue(shown(folder), "was written by another version", _HINT)])
            history = load_file(folder / _HISTORY)
            return cls(
                step=progress["step"],
                taken=progress["taken"],
                attempt=progress["attempt"],
                settings=progress["settings"],
                data=progress["data"],
                trained=load_file(folder / _TRAINED),
                optimizer=torch.load(folder / _OPTIMIZER, weights_only=True, map_location="cpu"),
                averages=load_file(folder / _AVERAGES) if (folder / _AVERAGES).exists() else {},
                losses=tuple(history["losses"].tolist()),
                rates=tuple(history["rates"].tolist()),
                validations=tuple(_validated(values) for values in progress["validations"]),
            )
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ConfigError("cannot resume", [Issue(shown(folder), "holds no complete state", _HINT)]) from error
        except _DAMAGED as error:
            message = f"is damaged ({_first_line(error)})"
            raise ConfigError("cannot resume", [Issue(shown(folder), message, _HINT)]) from error

    def check(self, settings: Mapping[str, Any], data: str, *, steps: int) -> None:
        """Make sure that this state belongs to a trainer of these settings and steps and a cache of this content."""
        changed = [
            Issue(key, f"was {self.settings.get(key)!r} when the state was saved, is {settings.get(key)!r}")
            for key in sorted({*self.settings, *settings})
            if self.settings.get(key) != settings.get(key)
        ]
        if self.data != data:
            changed.append(Issue("cache", "its content changed since the state was saved"))
        if self.step > steps:
            changed.append(Issue("steps", f"the state is at step {self.step} already, asked for {steps}"))
        if changed:
            raise ConfigError("cannot resume: the run would not be the same", changed)


def latest(output: Path, name: str) -> Path | None:
    """Return the state folder that a run of this name saved last in ``output``, or None."""
    times = {folder: found for folder in _folders(output, name) if (found := _saved_at(folder)) is not None}
    return max(times, key=times.__getitem__, default=None)


def tidy(output: Path, name: str) -> None:
    """Finish or remove what a save of this run that was killed left behind: a state is either there or not."""
    for aside in _folders(output, name, before=r"\.", after=re.escape(_REPLACED)):
        folder = output / aside.name.removeprefix(".").removesuffix(_REPLACED)
        if not folder.exists():
            aside.rename(folder)
    for unfinished in _folders(output, name, before=r"\.", after=r"\.[0-9a-f]+" + re.escape(_UNFINISHED)):
        shutil.rmtree(unfinished, ignore_errors=True)


def _folders(output: Path, name: str, *, before: str = "", after: str = "") -> list[Path]:
    """Return the state folders of exactly this name in ``output``, with patterns around theirs."""
    pattern = re.compile(before + "(.+-state)" + after)
    entries = output.iterdir() if output.is_dir() else ()
    return [path for path in entries if (found := pattern.fullmatch(path.name)) and parsed(found[1], name) is not None]


def _saved_at(folder: Path) -> float | None:
    try:
        return float(json.loads((folder / _PROGRESS).read_text(encoding="utf-8"))["saved_at"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Rename over an older state of the same name; the older one is moved aside first and removed last."""
    aside = folder.with_name(f".{folder.name}{_REPLACED}")
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        folder.rename(aside)
    temporary.rename(folder)
    atomic.sync_folder(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _validated(values: Mapping[str, Any]) -> Validated:
    bands = tuple(Band(**band) for band in values["bands"])
    return Validated(step=values["step"], loss=values["loss"], bands=bands, best=values["best"])


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].partition(". ")[0]
