"""What to train on, as a value: sources, sizes, lengths and how often."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypedDict, Unpack, cast

import attrs

from musubi.architecture import Geometry, Size
from musubi.core.errors import Issue
from musubi.core.events import Callback
from musubi.core.fields import count, field, one_of
from musubi.core.spec import Spec
from musubi.data.sources import Folder, Jsonl, Source
from musubi.data.windows import Head, Windows

if TYPE_CHECKING:
    from musubi.data.scan import Scan

Controls = Literal["optional", "required"]


class DatasetOptions(TypedDict, total=False):
    """What ``from_folder`` and ``from_jsonl`` pass on to the dataset's fields."""

    windows: Windows
    batch_size: int
    repeats: int
    control: Controls
    bucketing: bool
    no_upscale: bool
    geometry: Geometry


def _size(value: int | Sequence[int]) -> Size:
    """Return a square for a single number; what is no size is left for the check of its type."""
    return (value, value) if isinstance(value, int) else cast(Size, _as_tuple(value))


def _lengths(value: int | Iterable[int]) -> tuple[int, ...]:
    """Return clip lengths in ascending order, each once."""
    lengths = (value,) if isinstance(value, int) else cast(tuple[int, ...], _as_tuple(value))
    try:
        return tuple(sorted(set(lengths)))
    except TypeError:
        return lengths


def _sources(value: Iterable[Source]) -> tuple[Source, ...]:
    return cast(tuple[Source, ...], _as_tuple(value))


def _as_tuple(value: object) -> object:
    """Return a tuple of a collection's members; a text and what is no collection are left as they are."""
    listed = isinstance(value, Iterable) and not isinstance(value, str)
    return tuple(cast(Iterable[object], value)) if listed else value


@attrs.frozen(kw_only=True)
class Dataset(Spec):
    """Describe the training items: pictures and clips of ``sources``, each in the bucket nearest its aspect ratio.

    ``resolution`` is (width, height), or one number for a square; with ``bucketing`` only its area counts. ``frames``
    are the wanted clip lengths, and ``windows`` says where they are cut. A clip that is shorter than all of them is
    reported. Pictures are always single frames. ``batch_size`` and ``repeats`` concern training alone.

    Example:
        >>> from musubi import Dataset
        >>> clips = Dataset.from_folder("clips", resolution=(832, 480), frames=(1, 25)).repeat(4)
        >>> clips.repeats
        4
    """

    sources: tuple[Source, ...] = attrs.field(converter=_sources)
    resolution: Size = attrs.field(converter=_size)
    frames: tuple[int, ...] = attrs.field(default=(1,), converter=_lengths)
    windows: Windows = attrs.field(factory=Head)
    batch_size: int = field(default=1, check=count())
    repeats: int = field(default=1, check=count())
    control: Controls = "optional"
    bucketing: bool = True
    no_upscale: bool = False
    geometry: Geometry = attrs.field(factory=Geometry)

    @classmethod
    def from_folder(
        cls,
        path: Path | str,
        *,
        resolution: int | Size,
        frames: int | Iterable[int] = (1,),
        caption_extension: str = ".txt",
        recursive: bool = False,
        **options: Unpack[DatasetOptions],
    ) -> Self:
        """Return a dataset of the pictures and clips in a folder, with caption files beside them."""
        source = Folder(Path(path), caption_extension=caption_extension, recursive=recursive)
        return cls(sources=(source,), resolution=_size(resolution), frames=_lengths(frames), **options)

    @classmethod
    def from_jsonl(
        cls,
        path: Path | str,
        *,
        resolution: int | Size,
        frames: int | Iterable[int] = (1,),
        **options: Unpack[DatasetOptions],
    ) -> Self:
        """Return a dataset of the rows of a JSONL file."""
        return cls(sources=(Jsonl(Path(path)),), resolution=_size(resolution), frames=_lengths(frames), **options)

    def problems(self) -> Iterable[Issue]:
        """Yield what the geometry does not allow."""
        wrong = one_of("optional", "required")(self.control)
        if wrong is not None:
            yield Issue("control", wrong)
        if not self.sources:
            yield Issue("sources", "there is none", "use from_folder or from_jsonl")
        if not self.frames:
            yield Issue("frames", "there is no length", "frames=(1,) takes single frames")
        for i, length in enumerate(self.frames):
            yield from self.geometry.frame_issues(length, f"frames[{i}]")
        size_issues = self.geometry.size_issues(self.resolution, "resolution")
        yield from size_issues
        least = 2 * self.geometry.multiple
        if not size_issues and self.bucketing and self.resolution[0] * self.resolution[1] < least**2:
            yield Issue("resolution", "is too small for buckets", f"take at least {least}x{least}, or bucketing=False")

    def repeat(self, times: int) -> Self:
        """Return a dataset of which each epoch sees every item so many times."""
        return self.replace(repeats=times)

    def with_batch_size(self, batch_size: int) -> Self:
        """Return a dataset whose batches hold so many items of one bucket."""
        return self.replace(batch_size=batch_size)

    def with_control(self, *, required: bool = True) -> Self:
        """Return a dataset whose items must, or may, carry a conditioning picture or clip."""
        return self.replace(control="required" if required else "optional")

    def with_windows(self, windows: Windows) -> Self:
        """Return a dataset that cuts clips in another way."""
        return self.replace(windows=windows)

    def with_geometry(self, geometry: Geometry) -> Self:
        """Return a dataset for another architecture's sizes and lengths; ``Cache.build`` does this for its model."""
        return self.replace(geometry=geometry)

    def scan(self, *, on: Iterable[Callback] = ()) -> Scan:
        """Look at every file's header and return what would be trained, and what not and why.

        Raises:
            DataError: A folder or file of rows cannot be read, or holds nothing.
        """
        from musubi.data.scan import scan

        return scan(self, on=tuple(on))
