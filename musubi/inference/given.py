"""What a request gives a model to look at beside its prompt: by role, checked, and read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs

from musubi.architecture import Asked, Roles, Size
from musubi.core.errors import ConfigError, Issue
from musubi.inference.sources import Source, read_frames, read_picture, source_name

if TYPE_CHECKING:
    from torch import Tensor

_MEANT: Mapping[str, str] = MappingProxyType(
    {
        "image": "the first picture",
        "last": "the last picture",
        "control": "pictures, or a clip, to follow or to change",
        "video": "the clip to change",
    }
)


@attrs.frozen(kw_only=True)
class Given:
    """The pictures and clips of a request, not read yet: the first and last frame, what to follow, what to change."""

    image: Source | None = None
    last: Source | None = None
    control: tuple[Source, ...] = ()
    video: Source | None = None

    @property
    def sources(self) -> Mapping[str, tuple[Source, ...]]:
        """What is given, by role."""
        single = {role: source for role in ("image", "last", "video") if (source := getattr(self, role)) is not None}
        listed = {role: (source,) for role, source in single.items()}
        return {**listed, "control": self.control} if self.control else listed

    @property
    def in_memory(self) -> tuple[str, ...]:
        """The roles of what is no file."""
        return tuple(r for r, sources in self.sources.items() if not all(isinstance(s, Path) for s in sources))

    @property
    def metadata(self) -> Mapping[str, str]:
        """What a file of the result says about it: the names of files without their folders."""
        return {role: ", ".join(map(source_name, sources)) for role, sources in self.sources.items()}

    def issues(self, roles: Roles, title: str) -> Iterator[Issue]:
        """Yield what a model of these roles needs and lacks, and what it does not look at."""
        for role in roles.required:
            if role not in self.sources:
                yield Issue(role, f"is missing: {title} needs {_MEANT.get(role, role)}", "give a path or pixels")
        known = (*roles.required, *roles.optional)
        taken = f"it takes {', '.join(known)}" if known else "leave it out"
        for role in self.sources:
            if role not in known:
                yield Issue(role, f"{title} has no use for {_MEANT.get(role, role)}", taken)

    def read(self, size: Size, frames: int) -> Asked:
        """Decode everything; of clips as many frames as the result has, each picture in its own size.

        Raises:
            DataError: A file cannot be read.
            ConfigError: A clip is too short, or stands where a picture is wanted.
        """
        media: dict[str, tuple[Tensor, ...]] = {}
        for role, sources in self.sources.items():
            still = role in ("image", "last") or len(sources) > 1
            media[role] = tuple(
                read_picture(source, role) if still else read_frames(source, role, count=frames) for source in sources
            )
        clip = media.get("video", ())
        if clip and len(clip[0]) != frames:
            raise ConfigError("request", [Issue("video", f"is a picture, {frames} frames are wanted", "give a clip")])
        return Asked(media=media, size=size, frames=frames)
