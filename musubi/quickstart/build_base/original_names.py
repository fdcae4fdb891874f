"""Rename weights from the names of diffusers and transformers to those of the released Wan 2.1 files, and back."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from musubi.architectures.wan.keys import DIT, UMT5
from musubi.causal_vae.keys import vae_keys
from musubi.keymap import KeyMap

VAE = vae_keys()
__all__ = ["DIT", "UMT5", "VAE", "renamed", "restored"]


def renamed(weights: dict[str, Tensor], keys: KeyMap | None) -> dict[str, Tensor]:
    """Give all weights their original names; two never get the same name. Without ``keys`` they keep theirs."""
    result = {_original(name, keys): weight for name, weight in weights.items()}
    assert len(result) == len(weights), "renaming is one to one"
    return result


def restored(weights: dict[str, Tensor], keys: KeyMap | None, names: Iterable[str]) -> dict[str, Tensor]:
    """Undo `renamed`, given the names that it started from."""
    return {name: weights[_original(name, keys)] for name in names}


def _original(name: str, keys: KeyMap | None) -> str:
    return name if keys is None else keys.to_original(name)[0]
