"""Tables of clips in the reference's dataset files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import attrs

from musubi.architecture import Geometry
from musubi.compat import checks
from musubi.compat.dataset_table import ReferenceDataset, key, listed
from musubi.core.errors import Issue
from musubi.data.dataset import Dataset
from musubi.data.rates import EveryFrame, FrameRate, StatedRate
from musubi.data.sources.source import Source
from musubi.data.windows import Chunk, Full, Head, Slide, Spread, Windows

_EXTRACTIONS = ("head", "chunk", "slide", "uniform", "full")


@attrs.frozen(kw_only=True)
class ReferenceVideos(ReferenceDataset):
    """A table with ``video_directory`` or ``video_jsonl_file``.

    Example:
        >>> from musubi import Geometry, compat
        >>> table = compat.ReferenceVideos(
        ...     architecture="wan", video_jsonl_file="clips.jsonl", target_frames=(1, 26), frame_extraction="chunk"
        ... )
        >>> table.dataset(Geometry()).frames
        (1, 25)
    """

    image: ClassVar[bool] = False

    video_directory: str | None = attrs.field(default=None, metadata=key(checks.text))
    video_jsonl_file: str | None = attrs.field(default=None, metadata=key(checks.text))
    target_frames: tuple[int, ...] = attrs.field(
        default=(1,), converter=listed, metadata=key(checks.list_of(checks.positive, least=1))
    )
    frame_extraction: str = attrs.field(default="head", metadata=key(checks.choice(*_EXTRACTIONS)))
    frame_stride: int = attrs.field(default=1, metadata=key(checks.positive))
    frame_sample: int = attrs.field(default=1, metadata=key(checks.positive))
    max_frames: int = attrs.field(default=129, metadata=key(checks.positive))
    source_fps: float | None = attrs.field(default=None, metadata=key(checks.rate))

    @property
    def directory(self) -> str | None:
        return self.video_directory

    @property
    def rows(self) -> str | None:
        return self.video_jsonl_file

    def notes(self) -> Iterator[Issue]:
        yield from super().notes()
        if self.bucket_no_upscale:
            hint = "as in the reference's own caches"
            yield Issue("bucket_no_upscale", "makes no difference for clips: small ones are enlarged", hint)

    def _sources(self) -> tuple[str, str]:
        return "video_directory", "video_jsonl_file"

    def _not_enough(self, geometry: Geometry) -> Iterator[Issue]:
        yield from super()._not_enough(geometry)
        if not geometry.video:
            name = self._sources()[self.directory is None]
            yield Issue(name, "this architecture makes single pictures", "export frames and use image_directory")

    def _windows(self) -> Windows:
        match self.frame_extraction:
            case "chunk":
                return Chunk()
            case "slide":
                return Slide(stride=self.frame_stride)
            case "uniform":
                return Spread(count=self.frame_sample)
            case "full":
                return Full(max_frames=self.max_frames)
            case _:
                return Head()

    def _rate(self) -> FrameRate:
        return EveryFrame() if self.source_fps is None else StatedRate(source_fps=self.source_fps)

    def _dataset(self, source: Source, geometry: Geometry) -> Dataset:
        step = geometry.frame_step
        return Dataset(
            sources=(source,),
            resolution=self.resolution,
            frames=tuple((length - 1) // step * step + 1 for length in self.target_frames),
            windows=self._windows(),
            rate=self._rate(),
            batch_size=self.batch_size,
            repeats=self.num_repeats,
            control="required" if self._needs_control() else "optional",
            control_count=1,
            geometry=geometry,
        )
