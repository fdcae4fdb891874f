"""Items and scans made of thin air: nothing of them is on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from musubi.architecture import Size
from musubi.core.errors import Issue
from musubi.data.sample import Control, Item, Split, Window
from musubi.data.scan import Scan


def item(
    name: str = "cat.png",
    *,
    size: Size = (640, 480),
    bucket: Size = (640, 480),
    caption: str | tuple[str, ...] = "a cat on a mat",
    frames: int = 0,
    repeats: int = 1,
    batch_size: int = 1,
    split: Split = "train",
    controls: Mapping[str, tuple[Control, ...]] | None = None,
    mask: Path | None = None,
    weight: float = 1.0,
    folder: Path | str = "pictures",
    dropout: float = 0.0,
) -> Item:
    """Return a still, or with ``frames`` a clip's first window, of a file that need not be there."""
    return Item(
        name=f"{name}_{frames}",
        media=name,
        path=Path(folder) / name,
        kind="video" if frames else "image",
        captions=(caption,) if isinstance(caption, str) else caption,
        size=size,
        bucket=bucket,
        window=Window(0, max(1, frames)),
        repeats=repeats,
        batch_size=batch_size,
        split=split,
        controls=controls or {},
        mask=mask,
        weight=weight,
        dropout=dropout,
    )


def scan(*items: Item, dropped: tuple[Issue, ...] = (), notes: tuple[Issue, ...] = ()) -> Scan:
    """Return a scan of items."""
    return Scan(items=items, dropped=dropped, notes=notes)


def dropped(number: int, message: str = "control missing", *, hint: str = "add one") -> tuple[Issue, ...]:
    """Return so many issues of one message, about ``0000.png``, ``0001.png`` ..."""
    return tuple(Issue(f"pictures/{i:04d}.png", message, hint) for i in range(number))
