"""Names of FramePack's checkpoints: the published ones are diffusers' own, so nothing is translated."""

from __future__ import annotations

from musubi.keymap import KeyMap

DIT = KeyMap(())
