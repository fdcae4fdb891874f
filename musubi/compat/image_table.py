"""Tables of pictures in the reference's dataset files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import attrs
from attrs.converters import optional

from musubi.architecture import Geometry, Size
from musubi.compat import checks
from musubi.compat.dataset_table import ReferenceDataset, key, listed, pair
from musubi.core.errors import Issue
from musubi.data.control_size import ControlSize, LikeTarget, NearArea, OwnSize
from musubi.data.dataset import Dataset
from musubi.data.sources.source import Source

_ANY_NUMBER = "qie"
_BY_INDICES = ("fp", "wan")
"""Architectures whose items have as many controls as ``fp_1f_clean_indices`` has members."""


@attrs.frozen(kw_only=True)
class ReferenceImages(ReferenceDataset):
    """A table with ``image_directory`` or ``image_jsonl_file``.

    ``no_resize_control`` and ``control_resolution`` are what later versions of the reference call
    ``*_no_resize_control`` and ``qwen_image_edit_control_resolution``.

    Example:
        >>> from musubi import Geometry, compat
        >>> table = compat.ReferenceImages(architecture="wan", image_directory="cats", caption_extension=".txt")
        >>> table.dataset(Geometry()).resolution
        (960, 544)
    """

    image: ClassVar[bool] = True

    image_directory: str | None = attrs.field(default=None, metadata=key(checks.text))
    image_jsonl_file: str | None = attrs.field(default=None, metadata=key(checks.text))
    fp_1f_clean_indices: tuple[int, ...] | None = attrs.field(
        default=None, converter=optional(listed), metadata=key(checks.list_of(checks.whole))
    )
    fp_1f_target_index: int | None = attrs.field(default=None, metadata=key(checks.whole))
    fp_1f_no_post: bool = attrs.field(default=False, metadata=key(checks.flag))
    flux_kontext_no_resize_control: bool = attrs.field(default=False, metadata=key(checks.flag))
    qwen_image_edit_no_resize_control: bool = attrs.field(default=False, metadata=key(checks.flag))
    qwen_image_edit_control_resolution: Size | None = attrs.field(
        default=None, converter=optional(pair), metadata=key(checks.size)
    )
    no_resize_control: bool | None = attrs.field(default=None, metadata=key(checks.flag, newer=True))
    control_resolution: Size | None = attrs.field(
        default=None, converter=optional(pair), metadata=key(checks.size, newer=True)
    )
    multiple_target: bool = attrs.field(
        default=False,
        metadata=key(checks.only_false("is for Qwen-Image-Layered, which is not trained here"), newer=True),
    )

    @property
    def directory(self) -> str | None:
        return self.image_directory

    @property
    def rows(self) -> str | None:
        return self.image_jsonl_file

    @property
    def keeps_control_size(self) -> bool:
        """Whether control pictures keep their own sizes."""
        older = self.flux_kontext_no_resize_control or self.qwen_image_edit_no_resize_control
        return older if self.no_resize_control is None else self.no_resize_control

    @property
    def control_area(self) -> Size | None:
        """The size whose area control pictures get, if not that of their target."""
        return self.control_resolution or self.qwen_image_edit_control_resolution

    @property
    def control_count(self) -> int | None:
        """How many control pictures an item has; None is any number."""
        if self.architecture == _ANY_NUMBER:
            return None
        return len(self.fp_1f_clean_indices or ()) or 1 if self.architecture in _BY_INDICES else 1

    def notes(self) -> Iterator[Issue]:
        yield from super().notes()
        if self.bucket_no_upscale and not self.enable_bucket:
            yield Issue("bucket_no_upscale", "has no effect without enable_bucket", "set enable_bucket = true")
        if self.keeps_control_size and self.control_area is not None:
            yield Issue("control_resolution", "has no effect: controls keep their sizes", "remove no_resize_control")

    def _sources(self) -> tuple[str, str]:
        return "image_directory", "image_jsonl_file"

    def _control_size(self) -> ControlSize:
        if self.keeps_control_size:
            return OwnSize()
        return LikeTarget() if self.control_area is None else NearArea(resolution=self.control_area)

    def _dataset(self, source: Source, geometry: Geometry) -> Dataset:
        return Dataset(
            sources=(source,),
            resolution=self.resolution,
            batch_size=self.batch_size,
            repeats=self.num_repeats,
            control="required" if self._needs_control() else "optional",
            control_count=self.control_count,
            control_size=self._control_size(),
            bucketing=self.enable_bucket,
            no_upscale=self.enable_bucket and self.bucket_no_upscale,
            geometry=geometry,
        )
