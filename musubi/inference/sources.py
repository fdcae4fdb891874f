"""Pictures and clips that a request shows to a model: files by their path, or pixels in memory."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from musubi.core.errors import ConfigError, DataError, Issue
from musubi.inference.media import Image, Video

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image as PILImage
    from torch import Tensor

    Shown = Path | str | Image | Video | PILImage | npt.NDArray[np.generic] | Tensor
    """What may be given for a ``Source``."""

Source = Path | Image | Video
"""A file or a folder of frames, or pixels in memory."""


def as_source(value: object) -> Source | None:
    """Return a path, a Pillow image, or frames (H, W, 3) or (F, H, W, 3) as a ``Source``; None stays None.

    What is none of these is left as it is, for the check of its type to name the field.
    """
    if isinstance(value, str):
        return Path(value)
    if value is None or isinstance(value, Path | Image | Video):
        return value
    from PIL import Image as Pillow
    from PIL import ImageOps

    if isinstance(value, Pillow.Image):
        import numpy as np

        return Image(np.asarray(ImageOps.exif_transpose(value).convert("RGB")))
    return _array(value)


def as_sources(value: object) -> tuple[Source, ...]:
    """Return the sources of a list, or of a single one; of None there are none."""
    if value is None:
        return ()
    listed = cast(Iterable[object], value) if isinstance(value, list | tuple) else (value,)
    return tuple(cast(Source, as_source(one)) for one in listed)


def _array(value: Any) -> Source:
    rank = getattr(value, "ndim", None)
    if rank == 3:
        return Image(value)
    return Video(value, fps=1) if rank == 4 else cast(Source, value)


def source_name(source: Source) -> str:
    """Return what results tell about a source: a file's name without folders."""
    return source.name if isinstance(source, Path) else "in memory"


def read_picture(source: Source, role: str) -> Tensor:
    """Return a picture as uint8 RGB of shape (1, height, width, 3).

    Raises:
        DataError: The file cannot be read.
        ConfigError: It is a clip.
    """
    if _is_clip(source, role):
        message = f"must be a picture, {source_name(source)} is a clip"
        raise ConfigError("request", [Issue(role, message, "give one of its frames")])
    return _picture(source, role)


def read_frames(source: Source, role: str, *, count: int) -> Tensor:
    """Return the first ``count`` frames of a clip as uint8 RGB of shape (frames, height, width, 3), or a picture's one.

    Raises:
        DataError: The file cannot be read.
        ConfigError: The clip has fewer frames.
    """
    if not _is_clip(source, role):
        return _picture(source, role)
    import torch

    found = len(source.frames) if isinstance(source, Video) else _frames(cast(Path, source), role)
    if found < count:
        raise ConfigError("request", [_short(source, role, found, count)])
    if isinstance(source, Video):
        return torch.tensor(source.frames[:count])
    from musubi.data.media.video import read_clip

    with _told(role):
        return torch.stack([torch.tensor(frame) for frame in read_clip(cast(Path, source), range(count))])


def _short(source: Source, role: str, found: int, wanted: int) -> Issue:
    message = f"{source_name(source)} has {found} frames, {wanted} are wanted"
    return Issue(role, message, f"ask for at most {found} frames, or give a longer clip")


def _is_clip(source: Source, role: str) -> bool:
    if isinstance(source, Path):
        from musubi.data.media.loading import probe

        with _told(role):
            return probe(source).kind == "video"
    return isinstance(source, Video)


def _frames(path: Path, role: str) -> int:
    from musubi.data.media.loading import probe

    with _told(role):
        return probe(path).frames


def _picture(source: Source, role: str) -> Tensor:
    import torch

    if isinstance(source, Image):
        return torch.tensor(source.frame)[None]
    from musubi.data.media.images import read_image

    with _told(role):
        return torch.tensor(read_image(cast(Path, source)))[None]


@contextmanager
def _told(role: str) -> Generator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(f"the request's {role}: {error.title}", error.issues) from error
