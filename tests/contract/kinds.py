"""Which architectures the contract covers: every registered one, and the toy that shows how."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path

from musubi.architecture import Architecture
from musubi.core import kinds
from musubi.testing.checkpoints import tiny_wan
from musubi.testing.toy import Toy

TINY: Mapping[str, Callable[[Path], Architecture]] = {
    "toy": lambda _: Toy(),
    "wan": tiny_wan,
}
"""How to make a small one of each kind that can be run; what cannot be run yet must say so (test_facts)."""

KINDS = ("toy", *kinds.KINDS["architecture"])


def class_of(kind: str) -> type[Architecture]:
    """Return the class of a kind."""
    return kinds.find("architecture", kind, [Toy])


def variants(kind: str) -> dict[str, Architecture]:
    """Return one spec for each constructor that takes nothing, such as ``Toy()`` or ``Foo.large()``."""
    found = class_of(kind)
    makers: dict[str, Callable[[], Architecture]] = {
        name: method
        for name, method in inspect.getmembers(found, inspect.ismethod)
        if not name.startswith("_") and not inspect.signature(method).parameters
    }
    return {f"{kind}-{name}": make() for name, make in (makers or {"default": found}).items()}


VARIANTS = {name: spec for kind in KINDS for name, spec in variants(kind).items()}
