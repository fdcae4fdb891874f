"""Original names of Qwen2.5-VL, as ComfyUI ships it and as it was first published, <-> transformers' names.

Newer files name the language model ``model.language_model`` and the vision side ``model.visual``: transformers' own
names behind ``model.``.
"""

from __future__ import annotations

from musubi.keymap import KeyMap, Rename

VISION_LANGUAGE = KeyMap((Rename("model", "language_model"),))

TEXT_ENCODER = KeyMap((Rename("model", "encoder.language_model"), Rename("visual", "encoder.visual")))
"""The same as seen from ``VisionLanguage``, which holds the model beside its tokenizer."""

NEWER = ("model.language_model.", "model.visual.")
"""How names begin in newer files."""

UNUSED = (r"lm_head\..*",)
"""The layer that would turn states into words."""
