"""The embedded demo base model: a tiny Wan 2.1 that draws captioned shapes, in the file layout of the released ones."""

from __future__ import annotations

from pathlib import Path

from musubi import Wan

_FOLDER = Path(__file__).parent / "base"


def demo_model() -> Wan:
    """Return the text-to-video Wan whose weights lie inside this package; made for 64x64 pixels and 1 or 9 frames."""
    return Wan.t2v_1_3b().with_weights(
        dit=_FOLDER / "dit.safetensors",
        vae=_FOLDER / "vae.safetensors",
        t5=_FOLDER / "t5.safetensors",
        tokenizer=_FOLDER / "tokenizer",
    )
