"""A table of the reference's dataset files as a value: its own key names and defaults, and what they mean here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, cast

import attrs

from musubi.architecture import Geometry, Size
from musubi.compat import checks
from musubi.compat.checks import Check
from musubi.core.errors import ConfigError, Issue
from musubi.core.spec import Spec
from musubi.data.dataset import Dataset
from musubi.data.sources.folder import Folder
from musubi.data.sources.rows import Jsonl
from musubi.data.sources.source import Source

CHECK = "musubi.compat.check"
NEWER = "musubi.compat.newer"


def key(check: Check, *, newer: bool = False) -> Mapping[str, object]:
    """Return the metadata of a field that is a key of the file; v0.2.13 does not know the ``newer`` ones."""
    return {CHECK: check, NEWER: newer}


def pair(value: int | Sequence[int]) -> Size:
    """Return a square for a single number; what is no size is left for its check."""
    if isinstance(value, int):
        return (value, value)
    return cast(Size, tuple(value) if isinstance(value, list) else value)


def listed(value: Sequence[int]) -> tuple[int, ...]:
    """Return a tuple of a list; what is none is left for its check."""
    return cast(tuple[int, ...], tuple(value) if isinstance(value, list) else value)


@attrs.frozen(kw_only=True)
class ReferenceDataset(Spec, ABC):
    """One ``[[datasets]]`` table of a dataset file of musubi-tuner, general keys and defaults filled in.

    Fields are called as in the file. Pictures are a ``ReferenceImages``, clips a ``ReferenceVideos``. ``architecture``
    is the reference's short name, e.g. ``wan``.
    """

    image: ClassVar[bool]
    """Whether it is of pictures."""

    architecture: str
    resolution: Size = attrs.field(default=(960, 544), converter=pair, metadata=key(checks.size))
    enable_bucket: bool = attrs.field(default=False, metadata=key(checks.flag))
    bucket_no_upscale: bool = attrs.field(default=False, metadata=key(checks.flag))
    caption_extension: str | None = attrs.field(default=None, metadata=key(checks.text))
    batch_size: int = attrs.field(default=1, metadata=key(checks.positive))
    num_repeats: int = attrs.field(default=1, metadata=key(checks.positive))
    cache_directory: str | None = attrs.field(default=None, metadata=key(checks.text))
    control_directory: str | None = attrs.field(default=None, metadata=key(checks.text))
    fp_latent_window_size: int = attrs.field(default=9, metadata=key(checks.positive))

    @property
    @abstractmethod
    def directory(self) -> str | None:
        """The folder of pictures or clips."""

    @property
    @abstractmethod
    def rows(self) -> str | None:
        """The JSONL file; not read where there is a ``directory``."""

    @property
    def params(self) -> Mapping[str, object]:
        """The values under the names that v0.2.13 has for them."""
        fields = attrs.fields(type(self))
        return {a.name: getattr(self, a.name) for a in fields if not a.metadata.get(NEWER, False)}

    @property
    def cache_folder(self) -> Path | None:
        """Where the reference keeps the cache: ``cache_directory``, else among the media."""
        named = self.cache_directory or self.directory
        return Path(named) if named is not None else None

    def problems(self) -> Iterable[Issue]:
        """Yield every value that the reference refuses, or accepts and breaks on."""
        for attribute in attrs.fields(type(self)):
            value = getattr(self, attribute.name)
            check: Check | None = attribute.metadata.get(CHECK)
            if check is not None and (value is not None or attribute.default is not None):
                yield from (issue.under(attribute.name) for issue in check(value))

    def dataset(self, geometry: Geometry) -> Dataset:
        """Return what the reference trains on from this table, for an architecture's sizes and lengths.

        Raises:
            ConfigError: The table names no source or no caption files, or the architecture does not allow its values.
        """
        issues = list(self._not_enough(geometry))
        if issues:
            raise ConfigError(type(self).__name__, issues)
        return self._dataset(self._source(), geometry)

    @abstractmethod
    def notes(self) -> Iterator[Issue]:
        """Yield what is in the table but has no effect, or another than one would think."""
        if self.directory is not None and self.rows is not None:
            names = self._sources()
            yield Issue(names[1], f"is not read: there is {names[0]}, too", "make two [[datasets]] of them")
        elif self.rows is not None and self.control_directory is not None:
            yield Issue("control_directory", "is not read: the rows name their controls", "use control_path")

    @abstractmethod
    def _dataset(self, source: Source, geometry: Geometry) -> Dataset: ...

    @abstractmethod
    def _sources(self) -> tuple[str, str]:
        """Return the names of the keys for a directory and for rows."""

    def _source(self) -> Source:
        if self.directory is None:
            return Jsonl(Path(self.rows or ""))
        control = Path(self.control_directory) if self.control_directory is not None else None
        return Folder(
            Path(self.directory),
            caption_extension=self.caption_extension or "",
            control=control,
            media="image" if self.image else "video",
        )

    def _not_enough(self, geometry: Geometry) -> Iterator[Issue]:
        if self.directory is None and self.rows is None:
            yield Issue("", "names no source", f"add {' or '.join(self._sources())}")
        if self.directory is not None and self.caption_extension is None:
            hint = 'add caption_extension = ".txt", here or under [general]'
            yield Issue("caption_extension", f"is missing: {self._sources()[0]} has its captions in files", hint)
        if self.directory is not None and self.directory == self.control_directory:
            yield Issue("control_directory", f"is {self._sources()[0]}, too", "keep conditioning files apart")

    def _needs_control(self) -> bool:
        return self.directory is not None and self.control_directory is not None
