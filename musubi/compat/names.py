"""How the reference names architectures and cache files."""

from __future__ import annotations

import re

import attrs

from musubi.architecture import Architecture, Size
from musubi.cache.format import SUFFIX
from musubi.data.sample import Window

_SIZE = re.compile(r"(\d{4,})x(\d{4,})", re.ASCII)
_WINDOW = re.compile(r"(\d{5,})-(\d{3,})(?:-(\d{4,}))?", re.ASCII)


def short_name(model: Architecture) -> str:
    """Return the name in the reference's cache files: its models that edit pictures have one of their own.

    Example:
        >>> from musubi import QwenImage, Wan
        >>> short_name(Wan.t2v_14b()), short_name(QwenImage.edit())
        ('wan', 'qie')
    """
    edits = model.name == "qwen_image" and "control" in model.roles.required
    return "qie" if edits else model.cache_suffix


@attrs.frozen(kw_only=True)
class LatentName:
    """What the name of a latent file says: the media file's stem, its size, and of a clip the window and section."""

    stem: str
    size: Size
    window: Window | None = None
    section: int | None = None


def latent_name(name: str, *, architecture: str, clip: bool) -> LatentName | None:
    """Read the name of a latent file from the right, so that no stem confuses it; None if it is none.

    Whether it is of a clip, the file's own metadata says: a picture may be called like a window.

    Example:
        >>> from musubi.compat.names import latent_name
        >>> latent_name("my_clip_00010-081_0832x0480_wan.safetensors", architecture="wan", clip=True).stem
        'my_clip'
    """
    rest, _, written = name.removesuffix(f"_{architecture}{SUFFIX}").rpartition("_")
    size = _SIZE.fullmatch(written)
    if size is None or not rest:
        return None
    shape = (int(size[1]), int(size[2]))
    if not clip:
        return LatentName(stem=rest, size=shape)
    stem, _, frames = rest.rpartition("_")
    window = _WINDOW.fullmatch(frames)
    if window is None or not stem:
        return None
    section = int(window[3]) if window[3] is not None else None
    return LatentName(stem=stem, size=shape, window=Window(int(window[1]), int(window[2])), section=section)


def text_stem(name: str, *, architecture: str) -> str | None:
    """Return the media file's stem in the name of a text file; None if it is none."""
    ending = f"_{architecture}_te{SUFFIX}"
    return name.removesuffix(ending) if name.endswith(ending) and name != ending else None
