"""Which architectures the contract covers: every registered one, and the toy that shows how."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from musubi.architecture import Architecture
from musubi.core import kinds
from musubi.testing.checkpoints import tiny_wan
from musubi.testing.flux_kontext import tiny_flux_kontext
from musubi.testing.qwen_image import tiny_qwen_image
from musubi.testing.toy import Toy

TINY: Mapping[str, Callable[[Path], Architecture]] = {
    "toy": lambda _: Toy(),
    "wan": tiny_wan,
    "qwen_image": lambda folder: tiny_qwen_image(folder, task="edit_2509"),
    "flux_kontext": tiny_flux_kontext,
}
"""How to make a small one of each kind that can be run; what cannot be run yet must say so (test_facts)."""

IDLE: Mapping[str, str] = {
    "qwen_image": r"transformer_blocks_1_(attn_add_q_proj|attn_to_add_out|txt_mlp_net_(0_proj|2))",
}
"""Adapters that nothing reaches: of the last block's text nothing is read any more. The reference's files have them."""

KINDS = ("toy", *kinds.KINDS["architecture"])


def idle(kind: str, adapter: str) -> bool:
    """Return whether an adapter of a small model, by its flat or dotted name, has no effect on anything."""
    return kind in IDLE and re.fullmatch(IDLE[kind], adapter.replace(".", "_")) is not None


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
