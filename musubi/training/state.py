"""The state of a run on disk: a folder that is complete or absent, from which training continues bit for bit."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from musubi.cache.loader import Position
from musubi.core import atomic
from musubi.core.errors import ConfigError, Issue, shown

FORMAT = 1
_PROGRESS, _ADAPTER, _OPTIMIZER, _HISTORY = "run.json", "adapter.safetensors", "optimizer.pt", "history.safetensors"


@attrs.frozen(kw_only=True)
class RunState:
    """All that a run needs in order to go on as if it had never stopped.

    ``settings`` are the trainer's values that must not change across a resume, ``data`` the cache's content hash,
    ``generators`` the states of the random generators, ``losses`` and ``rates`` one number for each step taken.
    """

    step: int
    position: Position
    settings: Mapping[str, Any]
    data: str
    adapter: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    generators: Mapping[str, Tensor]
    losses: tuple[float, ...]
    rates: tuple[float, ...]

    def save(self, folder: Path) -> Path:
        """Write the state beside ``folder``, then put it in place in one step."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
        try:
            self._write(temporary)
            _put_in_place(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return folder

    def _write(self, folder: Path) -> None:
        save_file({name: tensor.contiguous() for name, tensor in self.adapter.items()}, folder / _ADAPTER)
        torch.save(dict(self.optimizer), folder / _OPTIMIZER)
        history = {f"generator.{name}": value for name, value in self.generators.items()}
        history["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        history["rates"] = torch.tensor(self.rates, dtype=torch.float64)
        save_file(history, folder / _HISTORY)
        progress = {
            "format": FORMAT,
            "step": self.step,
            "position": attrs.asdict(self.position),
            "settings": self.settings,
            "data": self.data,
        }
        (folder / _PROGRESS).write_text(json.dumps(progress, indent=2, ensure_ascii=False), encoding="utf-8")
        for file in folder.iterdir():
            atomic.sync_file(file)

    @classmethod
    def load(cls, folder: Path) -> RunState:
        """Read a state folder.

        Raises:
            ConfigError: It is not one, or it is damaged.
        """
        try:
            progress = json.loads((folder / _PROGRESS).read_text(encoding="utf-8"))
            history = load_file(folder / _HISTORY)
            adapter = load_file(folder / _ADAPTER)
            optimizer = torch.load(folder / _OPTIMIZER, weights_only=True)
        except (OSError, ValueError, SafetensorError, RuntimeError) as error:
            hint = "give the -state folder of an earlier run, or start without resume"
            raise ConfigError("cannot resume", [Issue(shown(folder), _first_line(error), hint)]) from error
        if progress.get("format") != FORMAT:
            raise ConfigError("cannot resume", [Issue(shown(folder), "was written by another version")])
        return cls(
            step=progress["step"],
            position=Position(**progress["position"]),
            settings=progress["settings"],
            data=progress["data"],
            adapter=adapter,
            optimizer=optimizer,
            generators={n.removeprefix("generator."): t for n, t in history.items() if n.startswith("generator.")},
            losses=tuple(history["losses"].tolist()),
            rates=tuple(history["rates"].tolist()),
        )

    def check(self, settings: Mapping[str, Any], data: str) -> None:
        """Make sure that this state belongs to a trainer of these settings and a cache of this content."""
        changed = [
            Issue(key, f"was {self.settings.get(key)!r} when the state was saved, is {settings.get(key)!r}")
            for key in sorted({*self.settings, *settings})
            if self.settings.get(key) != settings.get(key)
        ]
        if self.data != data:
            changed.append(Issue("cache", "its content changed since the state was saved"))
        if changed:
            raise ConfigError("cannot resume: the run would not be the same", changed)


def latest(output: Path, name: str) -> Path:
    """Return the state folder of the highest step that a run of this name left in ``output``.

    Raises:
        ConfigError: There is none.
    """
    found = [(_step_of(folder), folder) for folder in output.glob(f"{name}*-state") if (folder / _PROGRESS).is_file()]
    if not found:
        raise ConfigError("cannot resume", [Issue(shown(output), f"holds no state of a run called {name!r}")])
    return max(found, key=lambda pair: pair[0])[1]


def _step_of(folder: Path) -> int:
    step: int = json.loads((folder / _PROGRESS).read_text(encoding="utf-8"))["step"]
    return step


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Rename over an older state of the same name; the older one is moved aside first and removed last."""
    aside = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        folder.rename(aside)
    temporary.rename(folder)
    atomic.sync_folder(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
