"""Pictures and clips as values, and their files.

Frames are uint8 RGB of shape (H, W, 3) or (F, H, W, 3); what is given as float in [0, 1] is rounded, not cut.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.core import atomic
from musubi.core.errors import ConfigError, Issue, shown
from musubi.core.fields import did_you_mean

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image as PILImage
    from PIL.PngImagePlugin import PngInfo
    from torch import Tensor

    Pixels = npt.NDArray[np.uint8]

_PREVIEW = 384
"""The longest side of a clip's preview, in pixels."""


def to_uint8(frames: Tensor | npt.NDArray[np.generic]) -> Pixels:
    """Return a copy of frames as uint8: floats in [0, 1] rounded to the nearest of 256 levels, uint8 as it is."""
    import numpy as np

    array: npt.NDArray[np.generic] = frames if isinstance(frames, np.ndarray) else _on_host(frames)
    if array.dtype == np.uint8:
        return np.array(array, dtype=np.uint8)
    if not np.issubdtype(array.dtype, np.floating):
        raise ConfigError("frames", [Issue("frames", f"must be uint8, or float in [0, 1], got {array.dtype}")])
    rounded: Pixels = np.rint(np.nan_to_num(array.astype(np.float32)).clip(0, 1) * 255).astype(np.uint8)
    return rounded


def _on_host(frames: Tensor) -> npt.NDArray[np.generic]:
    tensor = frames.detach().cpu()
    array: npt.NDArray[np.generic] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return array


def _picture(frame: Tensor | npt.NDArray[np.generic]) -> Pixels:
    return _checked(to_uint8(frame), "(H, W, 3)", rank=3)


def _clip(frames: Tensor | npt.NDArray[np.generic]) -> Pixels:
    return _checked(to_uint8(frames), "(F, H, W, 3)", rank=4)


def _checked(pixels: Pixels, wanted: str, *, rank: int) -> Pixels:
    if pixels.ndim != rank or pixels.shape[-1] != 3 or 0 in pixels.shape:
        raise ConfigError("frames", [Issue("frames", f"must have the shape {wanted}, got {pixels.shape}")])
    pixels.flags.writeable = False
    return pixels


def _same(one: Pixels, other: Pixels) -> bool:
    return one.shape == other.shape and bool((one == other).all())


def _check_fps(_: object, __: object, value: float) -> None:
    if value <= 0:
        raise ConfigError("Video", [Issue("fps", f"must be a number above 0, got {value!r}")])


def _text(values: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(values))


@attrs.frozen(repr=False)
class Image:
    """One picture; ``metadata`` (prompt, seed, ...) goes into PNG files. Equal pixels make equal pictures.

    Example:
        >>> import numpy as np
        >>> from musubi.inference.media import Image
        >>> Image(np.zeros((48, 64, 3))).size
        (64, 48)
    """

    suffix: ClassVar[str] = ".png"
    """What a file is called if nobody chose."""

    suffixes: ClassVar[tuple[str, ...]] = (".png", ".jpg", ".jpeg", ".webp")

    frame: Pixels = attrs.field(converter=_picture, eq=attrs.cmp_using(eq=_same), hash=False)
    metadata: Mapping[str, str] = attrs.field(factory=dict, converter=_text, kw_only=True, eq=False)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.frame.shape[1], self.frame.shape[0]

    def to_numpy(self) -> Pixels:
        """Return the pixels, uint8 of shape (H, W, 3), read-only."""
        return self.frame

    def to_pil(self) -> PILImage:
        """Return a Pillow image."""
        from PIL.Image import fromarray

        return fromarray(self.frame)

    def save(self, path: Path | str) -> Path:
        """Write a ``.png``, ``.jpg`` or ``.webp`` file atomically and return its path.

        Raises:
            ConfigError: The suffix is another one.
        """
        suffix = _suffix(path, self.suffixes)
        with atomic.replacing(path) as temporary:
            if suffix == ".png":
                self.to_pil().save(temporary, pnginfo=_png_text(self.metadata))
            elif suffix == ".webp":
                self.to_pil().save(temporary, lossless=True)
            else:
                self.to_pil().save(temporary, quality=95, subsampling=0)
        return Path(path)

    def __repr__(self) -> str:
        width, height = self.size
        return f"<Image of {width}x{height}>"

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.to_pil().save(buffer, format="PNG")
        return buffer.getvalue()


@attrs.frozen(repr=False)
class Video:
    """A clip without sound; ``fps`` is in frames a second, ``metadata`` (prompt, seed, ...) goes into MP4 files.

    Example:
        >>> import numpy as np
        >>> from musubi.inference.media import Video
        >>> Video(np.zeros((33, 48, 64, 3)), fps=16).seconds
        2.0625
    """

    suffix: ClassVar[str] = ".mp4"
    """What a file is called if nobody chose."""

    suffixes: ClassVar[tuple[str, ...]] = (".mp4", ".gif", ".webp")

    frames: Pixels = attrs.field(converter=_clip, eq=attrs.cmp_using(eq=_same), hash=False)
    fps: float = attrs.field(kw_only=True, validator=_check_fps)
    metadata: Mapping[str, str] = attrs.field(factory=dict, converter=_text, kw_only=True, eq=False)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.frames.shape[2], self.frames.shape[1]

    @property
    def seconds(self) -> float:
        """How long the clip plays."""
        return len(self.frames) / self.fps

    def to_numpy(self) -> Pixels:
        """Return the pixels, uint8 of shape (F, H, W, 3), read-only."""
        return self.frames

    def to_pil(self) -> list[PILImage]:
        """Return one Pillow image for each frame."""
        return [image.to_pil() for image in self.images()]

    def images(self) -> tuple[Image, ...]:
        """Return one picture for each frame."""
        return tuple(Image(frame, metadata=self.metadata) for frame in self.frames)

    def save(self, path: Path | str, *, crf: int = 18) -> Path:
        """Write an ``.mp4``, ``.gif`` or ``.webp`` file atomically and return its path.

        Args:
            path: Where to; parent folders are made.
            crf: Quality of an MP4: 0 loses least, 51 most. A side of odd length is made even by repeating its last
                pixels, which 4:2:0 video needs.

        Raises:
            ConfigError: The suffix is another one.
        """
        suffix = _suffix(path, self.suffixes)
        with atomic.replacing(path) as temporary:
            if suffix == ".mp4":
                from musubi.inference.mp4 import write_mp4

                write_mp4(temporary, self.frames, fps=self.fps, crf=crf, metadata=self.metadata)
            else:
                _write_animation(temporary, self.to_pil(), fps=self.fps, lossless=True)
        return Path(path)

    def __repr__(self) -> str:
        return f"<Video of {self._facts}>"

    @property
    def _facts(self) -> str:
        width, height = self.size
        return f"{len(self.frames)} frames of {width}x{height} at {self.fps:g} frames a second"

    def _repr_html_(self) -> str:
        buffer = io.BytesIO()
        _write_animation(buffer, [_thumbnail(image) for image in self.to_pil()], fps=self.fps, lossless=False)
        encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
        return f'<img alt="{self._facts}" src="data:image/webp;base64,{encoded}">'


def _suffix(path: Path | str, supported: Sequence[str]) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in supported:
        message = f"cannot write {suffix or 'a file without suffix'}{did_you_mean(suffix, supported)}"
        raise ConfigError("save", [Issue(shown(path), message, f"supported are {', '.join(supported)}")])
    return suffix


def _png_text(metadata: Mapping[str, str]) -> PngInfo:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for name, text in metadata.items():
        info.add_itxt(name, text)
    return info


def _thumbnail(image: PILImage) -> PILImage:
    small = image.copy()
    small.thumbnail((_PREVIEW, _PREVIEW))
    return small


def _write_animation(target: Path | io.BytesIO, images: Sequence[PILImage], *, fps: float, lossless: bool) -> None:
    gif = isinstance(target, Path) and target.suffix.lower() == ".gif"
    options = {} if gif else {"lossless": lossless}
    images[0].save(
        target,
        format="GIF" if gif else "WEBP",
        save_all=True,
        append_images=images[1:],
        duration=round(1000 / fps),
        loop=0,
        **options,
    )
