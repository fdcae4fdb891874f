"""The small transformer of ``small.py`` as an architecture: what LoRA files need to know of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import attrs

from musubi.architecture import ComfyNames, Interchange, Layout
from musubi.keymap import KeyMap, Rename
from musubi.networks.groups import groups_of
from musubi.testing.toy import Toy
from tests.networks.small import KEYS, LAYOUT, Small


@attrs.frozen(kw_only=True)
class SmallSpec(Toy):
    """A fused module in two parts, one of its own name, and a head whose halves diffusers exchanges."""

    kind: ClassVar[str] = "small"
    name: ClassVar[str] = "small"

    @property
    def layout(self) -> Layout:
        return LAYOUT

    @property
    def keys(self) -> KeyMap:
        return KeyMap((*KEYS.rules, Rename("last", "head")))

    @property
    def interchange(self) -> Interchange:
        names = ComfyNames(own=(("proj_out", "proj"),), prefixes=("transformer.",))
        return Interchange(layout="peft", diffusers=None, comfy_names=names, swapped=("last",))

    def linears(self) -> Mapping[str, tuple[int, int]]:
        return {name: (group.in_features, sum(group.rows)) for name, group in groups_of(Small(), self.keys).items()}
