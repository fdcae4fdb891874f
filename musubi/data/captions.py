"""What is done to captions before they are encoded, and which of an item's captions a draw takes."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from typing import Literal

import attrs

from musubi.core.fields import count, field, one_of, share
from musubi.core.spec import Spec

Missing = Literal["report", "blank"]


@attrs.frozen(kw_only=True)
class Captions(Spec):
    """Turn the captions as written into those that are encoded; in every epoch one of them is drawn for each item.

    Args:
        trigger: A word put in front of every caption that does not hold it yet; shuffled tags always follow it.
        shuffles: How many orders of the tags to encode of each caption; 0 leaves captions as written.
        separator: What stands between tags.
        keep: How many leading tags stay where they are, the trigger not counted.
        dropout: The share of draws that see a blank caption, as guidance without a classifier wants it.
        missing: Whether an item without a caption is reported and left out, or trained with a blank one.
        seed: Decides the orders.

    Example:
        >>> from musubi import Captions
        >>> Captions(trigger="zuzu").variants(["a zuzu on grass", "on a roof"])
        ('a zuzu on grass', 'zuzu, on a roof')
    """

    trigger: str = ""
    shuffles: int = field(default=0, check=count(0))
    separator: str = field(default=",", check=lambda v: None if v else "must not be empty, e.g. ','")
    keep: int = field(default=0, check=count(0))
    dropout: float = field(default=0.0, check=share)
    missing: Missing = field(default="report", check=one_of("report", "blank"))
    seed: int = field(default=0, check=count(0))

    def variants(self, captions: Sequence[str]) -> tuple[str, ...]:
        """Return the captions to encode, each once, in a fixed order."""
        return tuple(dict.fromkeys(variant for caption in captions for variant in self._variants(caption)))

    def _variants(self, caption: str) -> Iterator[str]:
        if self.shuffles == 0:
            yield self._triggered(caption)
            return
        tags = [tag.strip() for tag in caption.split(self.separator) if tag.strip() not in {"", self.trigger}]
        first, rest = tags[: self.keep], tags[self.keep :]
        source = random.Random(hashlib.sha256(f"{self.seed}/{caption}".encode()).hexdigest())
        for _ in range(self.shuffles):
            order = sorted(rest, key=lambda _: source.random())
            yield self._triggered(f"{self.separator.rstrip()} ".join([*first, *order]))

    def _triggered(self, caption: str) -> str:
        """Put the trigger in front unless it stands in the caption as a word of its own."""
        if not self.trigger or re.search(rf"(?<!\w){re.escape(self.trigger)}(?!\w)", caption):
            return caption
        return f"{self.trigger}{self.separator.rstrip()} {caption}" if caption else self.trigger
