"""Names of Qwen-Image's checkpoints: the published ones are the library's own, so nothing is translated.

Only pruned files, whose remaining blocks keep their old numbers, are counted anew.
"""

from __future__ import annotations

from collections.abc import Sequence

from musubi.keymap import KeyMap, Rename

DIT = KeyMap(())


def renumbered(blocks: Sequence[int]) -> KeyMap:
    """Return the names in a file that has these blocks <-> the names in a model that numbers them from 0."""
    return KeyMap(
        Rename(f"transformer_blocks.{old}", f"transformer_blocks.{new}") for new, old in enumerate(sorted(blocks))
    )
