"""One tracker as a run sees it: opened, told scalars and samples, closed, and never the reason why a run ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from musubi.core.errors import ConfigError, Issue
from musubi.core.events import Media
from musubi.core.fields import did_you_mean
from musubi.inference.media import Image, Video

if TYPE_CHECKING:
    from musubi.inference.media import Pixels

logger = logging.getLogger(__name__)

_RUN_OPTION: Mapping[str, str] = MappingProxyType(
    {"wandb": "name", "trackio": "name", "swanlab": "experiment_name", "mlflow": "run_name"}
)
"""What trackers that keep runs in a project call the run's name."""

_FOLDER_OPTION: Mapping[str, str] = MappingProxyType({"wandb": "dir", "swanlab": "logdir", "mlflow": "logging_dir"})
"""What such trackers call the folder in which they keep what they have not sent yet."""

_MEDIA_MODULES = ("wandb", "trackio")
"""Trackers whose package has an ``Image`` and a ``Video`` that go into a log."""

_PATIENCE = 3
"""Failures in a row after which a tracker is left alone."""

_SHOWN = 6
"""Frames of a clip that are shown side by side where clips cannot be."""


class TrackerSink:
    """A tracker of accelerate's by its name; what it cannot take is warned of and the run goes on."""

    def __init__(self, name: str, *, project: str, run: str, folder: Path, options: Mapping[str, object]) -> None:
        """Find the tracker.

        Raises:
            ConfigError: There is none of this name, or it is not installed.
        """
        self.name = name
        self._class = _find(name)
        keeps_folders = bool(self._class.requires_logging_directory)
        named = {"logging_dir": str(folder)} if keeps_folders else _named(name, run, folder)
        self._main = run if keeps_folders else project
        self._folder, self._options = folder, {**named, **options}
        self._tracker: Any = None
        self._failures = 0

    def open(self, settings: Mapping[str, str | int | float | bool]) -> None:
        """Start the tracker and tell it the run's settings.

        Raises:
            ConfigError: It does not start, e.g. because nobody has logged in.
        """
        try:
            if str(self._folder) in self._options.values():
                self._folder.mkdir(parents=True, exist_ok=True)
            tracker = self._class(self._main, **self._options)
            tracker.start()
        except Exception as error:
            hint = "log in, or change the options of TrackerCallback"
            raise ConfigError("cannot track", [Issue(self.name, f"does not start: {_told(error)}", hint)]) from error
        self._tracker, self._failures = tracker, 0
        if settings:
            self._try(partial(_tell_settings, self.name, tracker, settings))

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        """Log numbers by name."""
        if self._takes_more:
            self._try(partial(self._tracker.log, dict(values), step=step))

    def samples(self, media: Sequence[Media], paths: Sequence[Path], *, step: int) -> None:
        """Log pictures and clips as ``sample_0``, ``sample_1``, ..., where the tracker can show them."""
        for index, (one, path) in enumerate(zip_longest(media, paths[: len(media)])):
            if self._takes_more:
                self._try(partial(self._show, f"sample_{index}", one, path, step))

    def close(self) -> None:
        """Write what is left and end the tracker's own run."""
        if self._tracker is not None:
            self._try(self._tracker.finish)
        self._tracker = None

    @property
    def _takes_more(self) -> bool:
        return self._tracker is not None and self._failures < _PATIENCE

    def _try(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  # whatever a tracker's own code and network raise
            self._failures += 1
            left = "" if self._takes_more else "; nothing more is logged to it"
            logger.warning("%s did not take a log: %s%s", self.name, _told(error), left)
        else:
            self._failures = 0

    def _show(self, key: str, media: Media, path: Path | None, step: int) -> None:
        tracker = self._tracker
        if self.name in _MEDIA_MODULES:
            tracker.log({key: _package_media(self.name, media, path)}, step=step)
        elif hasattr(tracker, "log_images") and isinstance(media, Image | Video):
            still = _still(media)
            extra = {"dataformats": "NHWC"} if self.name == "tensorboard" else {}
            tracker.log_images({key: still[None]}, step=step, **extra)


def _find(name: str) -> Any:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known = [str(known) for known in LOGGER_TYPE_TO_CLASS]
    if name not in known:
        near = did_you_mean(name, known)
        hint = f"known are {', '.join(known)}"
        raise ConfigError("TrackerCallback", [Issue("tracker", f"no tracker is called {name!r}{near}", hint)])
    if name not in [str(found) for found in get_available_trackers()]:
        raise ConfigError("TrackerCallback", [Issue("tracker", f"{name} is not installed", f"pip install {name}")])
    return LOGGER_TYPE_TO_CLASS[name]


def _named(name: str, run: str, folder: Path) -> dict[str, str]:
    """Return the options that give a tracker with projects the run's name and its folder."""
    options = {_RUN_OPTION.get(name, ""): run, _FOLDER_OPTION.get(name, ""): str(folder)}
    return {option: value for option, value in options.items() if option}


def _tell_settings(name: str, tracker: Any, settings: Mapping[str, str | int | float | bool]) -> None:
    """Tell the settings as the run's configuration, or as a table of text where that would make runs of its own."""
    if name == "tensorboard":
        rows = [f"| {key} | {value} |" for key, value in settings.items()]
        tracker.log({"settings": "\n".join(["| setting | value |", "|---|---|", *rows])}, step=0)
    else:
        tracker.store_init_configuration(dict(settings))


def _package_media(name: str, media: Media, path: Path | None) -> object:
    """Return what a tracker's own package calls a picture or a clip."""
    import importlib

    package = importlib.import_module(name)
    if isinstance(media, Video) and path is not None:
        return package.Video(str(path), format=path.suffix.removeprefix("."))
    if isinstance(media, Image | Video):
        return package.Image(_still(media))
    raise TypeError(f"{type(media).__name__} is neither picture nor clip")


def _still(media: Image | Video) -> Pixels:
    """Return a picture, or frames of a clip side by side, evenly spread from its first to its last."""
    if isinstance(media, Image):
        return media.to_numpy()
    frames = media.to_numpy()
    chosen = np.linspace(0, len(frames) - 1, min(_SHOWN, len(frames))).round().astype(int)
    return np.concatenate(list(frames[chosen]), axis=1)


def _told(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__
