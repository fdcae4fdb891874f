"""What the maker of a LoRA says about it, for those who find the file."""

from __future__ import annotations

import attrs

from musubi.core.fields import each, field
from musubi.core.spec import Spec


def _tag(value: object) -> str | None:
    good = isinstance(value, str) and value.strip() == value and bool(value) and "," not in value
    return None if good else f"must be a word or a few, without a comma, got {value!r}"


@attrs.frozen(kw_only=True)
class About(Spec):
    """Say in a LoRA's metadata what it is; what is None is left out.

    Args:
        title: Its name; by default the trainer's.
        author: Who made it.
        description: What it does, and the words that call it up.
        license: Its licence; by default the base model's.
        tags: Words to find it by.
        comment: Anything else about the training.

    Example:
        >>> from musubi import About
        >>> About(title="Clay style", author="me", tags=("clay", "animation")).tags
        ('clay', 'animation')
    """

    title: str | None = None
    author: str | None = None
    description: str | None = None
    license: str | None = None
    tags: tuple[str, ...] = field(default=(), check=each(_tag))
    comment: str | None = None
