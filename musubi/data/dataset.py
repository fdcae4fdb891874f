"""What to train on, as a value: sources, sizes, lengths and how often."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypedDict, TypeGuard, Unpack, cast

import attrs

from musubi.architecture import Geometry, Size
from musubi.core.errors import Issue
from musubi.core.events import Callback
from musubi.core.fields import accepting, count, field, one_of, optional
from musubi.core.spec import Spec
from musubi.data.captions import Captions
from musubi.data.control_size import ControlSize, LikeTarget
from musubi.data.holdout import HoldOut
from musubi.data.rates import FrameRate, Resample
from musubi.data.sources.folder import Folder
from musubi.data.sources.rows import Jsonl
from musubi.data.sources.source import Source
from musubi.data.windows import Head, Windows

if TYPE_CHECKING:
    from musubi.architecture import Architecture
    from musubi.data.scan import Scan

Controls = Literal["optional", "required"]


class DatasetOptions(TypedDict, total=False):
    """What ``from_folder`` and ``from_jsonl`` pass on to the dataset's fields."""

    windows: Windows
    rate: FrameRate
    keep_short: bool
    captions: Captions
    batch_size: int
    repeats: int
    control: Controls
    control_count: int | None
    control_size: ControlSize
    validation: HoldOut | None
    bucketing: bool
    no_upscale: bool
    geometry: Geometry


def _size(value: int | Sequence[int]) -> Size:
    """Return a square for a single number; what is no size is left for the check of its type."""
    return (value, value) if isinstance(value, int) else cast(Size, _as_tuple(value))


def _lengths(value: int | Iterable[int]) -> tuple[int, ...]:
    """Return clip lengths in ascending order, each once."""
    lengths = (value,) if isinstance(value, int) else _as_tuple(value)
    return tuple(sorted(set(lengths))) if _are_numbers(lengths) else cast(tuple[int, ...], lengths)


def _sources(value: Iterable[Source]) -> tuple[Source, ...]:
    return cast(tuple[Source, ...], _as_tuple(value))


def _are_numbers(value: object) -> TypeGuard[tuple[int, ...]]:
    return isinstance(value, tuple) and all(isinstance(member, int) for member in cast(tuple[object, ...], value))


def _as_tuple(value: object) -> object:
    """Return a tuple of a collection's members; a text and what is no collection are left as they are."""
    listed = isinstance(value, Iterable) and not isinstance(value, str)
    return tuple(cast(Iterable[object], value)) if listed else value


@attrs.frozen(kw_only=True)
class Dataset(Spec):
    """Describe the training items: pictures and clips of ``sources``, each in the bucket nearest its aspect ratio.

    Pictures are always single frames.

    Args:
        sources: Where the items come from.
        resolution: (width, height), or one number for a square; with ``bucketing`` only its area counts.
        frames: The wanted clip lengths.
        windows: Where in a clip they are cut.
        rate: At which frame rate; the model's own unless told otherwise.
        keep_short: Whether a clip shorter than all ``frames`` is kept at the longest legal length, or reported.
        captions: What is done to captions before they are encoded.
        batch_size: How many items of one bucket a training batch holds.
        repeats: How often an epoch sees every item.
        control: Whether items must, or may, carry conditioning pictures or clips.
        control_count: How many each must have, those beyond are left out; None takes all there are.
        control_size: The size that conditioning pictures are encoded at.
        validation: What is held out of training.
        bucketing: Whether every item keeps about its own aspect ratio, or is cropped to ``resolution``.
        no_upscale: Whether what is smaller than ``resolution`` keeps its size.
        geometry: The sizes and lengths that the architecture allows.

    Example:
        >>> from musubi import Dataset
        >>> clips = Dataset.from_folder("clips", resolution=(832, 480), frames=(1, 25)).repeat(4)
        >>> clips.repeats
        4
    """

    sources: tuple[Source, ...] = attrs.field(converter=_sources)
    resolution: Size = attrs.field(converter=_size, metadata=accepting(int | Size))
    frames: tuple[int, ...] = attrs.field(default=(1,), converter=_lengths, metadata=accepting(int | tuple[int, ...]))
    windows: Windows = attrs.field(factory=Head)
    rate: FrameRate = attrs.field(factory=Resample)
    keep_short: bool = False
    captions: Captions = attrs.field(factory=Captions)
    batch_size: int = field(default=1, check=count())
    repeats: int = field(default=1, check=count())
    control: Controls = "optional"
    control_count: int | None = field(default=None, check=optional(count()))
    control_size: ControlSize = attrs.field(factory=LikeTarget)
    validation: HoldOut | None = None
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
        if not self.bucketing:
            yield from self.geometry.size_issues(self.resolution, "resolution")
            return
        least = 2 * self.geometry.multiple
        if min(self.resolution) < 1 or self.resolution[0] * self.resolution[1] < least**2:
            yield Issue("resolution", "is too small for buckets", f"take at least {least}x{least}, or bucketing=False")

    def repeat(self, times: int) -> Self:
        """Return a dataset of which each epoch sees every item so many times."""
        return self.replace(repeats=times)

    def with_batch_size(self, batch_size: int) -> Self:
        """Return a dataset whose batches hold so many items of one bucket."""
        return self.replace(batch_size=batch_size)

    def with_control(self, *, required: bool = True, count: int | None = None, size: ControlSize | None = None) -> Self:
        """Return a dataset whose items must, or may, carry ``count`` (None: any number of) conditioning files."""
        return self.replace(
            control="required" if required else "optional",
            control_count=count,
            control_size=size or self.control_size,
        )

    def with_captions(self, captions: Captions) -> Self:
        """Return a dataset whose captions are treated in another way: trigger word, shuffled tags, dropout."""
        return self.replace(captions=captions)

    def with_rate(self, rate: FrameRate) -> Self:
        """Return a dataset whose clips are taken at another frame rate."""
        return self.replace(rate=rate)

    def with_validation(self, *, share: float = 0.0, folder: Path | str | None = None, seed: int = 0) -> Self:
        """Return a dataset of which a share of the files, or those in a folder, are held out of training."""
        return self.replace(validation=HoldOut(share=share, folder=folder, seed=seed))

    def with_windows(self, windows: Windows) -> Self:
        """Return a dataset that cuts clips in another way."""
        return self.replace(windows=windows)

    def with_geometry(self, geometry: Geometry) -> Self:
        """Return a dataset for another architecture's sizes and lengths; ``Cache.build`` does this for its model."""
        return self.replace(geometry=geometry)

    def scan(
        self,
        *,
        thorough: bool = False,
        model: Architecture | None = None,
        on: Iterable[Callback] = (),
        progress: bool = True,
    ) -> Scan:
        """Look at every file's header and return what would be trained, and what not and why.

        ``thorough`` decodes every picture and the first frame of every clip, with their conditioning files and masks:
        damaged files and near-duplicates are found. With a ``model`` captions longer than its text encoder reads are
        found; this needs its tokenizer.

        Raises:
            DataError: A folder or file of rows cannot be read, or holds nothing.
        """
        from musubi.data.scan import scan

        return scan((self,), thorough=thorough, model=model, on=tuple(on), progress=progress)
