"""Names of Qwen-Image's checkpoints: the published ones are the library's own, so nothing is translated."""

from __future__ import annotations

from musubi.keymap import KeyMap

DIT = KeyMap(())
