"""Pixels and captions to latents and text embeddings, and latents back to pixels.

Shape suffixes: B batch, C channels, F frames, H height, W width, L tokens, D width.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from torch import Tensor, nn

from musubi.architecture import Codec, Models, Stage
from musubi.architectures.wan.detect import Kind
from musubi.architectures.wan.fit import expect
from musubi.architectures.wan.place import weights_path
from musubi.architectures.wan.text import TextEncoder, load_text_encoder
from musubi.architectures.wan.vae import decode_latents, encode_pixels, load_vae
from musubi.batch import RAGGED, Entry, Sample
from musubi.core.errors import DataError, Issue
from musubi.weights.checkpoint import open_checkpoint
from musubi.weights.identity import identity

if TYPE_CHECKING:
    from musubi.architectures.wan.spec import Wan

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=nn.Module)

_SUBFOLDERS = (("vae", "vae"), ("t5", "text_encoder"), ("tokenizer", "tokenizer"))
_KINDS: Mapping[str, Kind] = MappingProxyType({"vae": "vae", "t5": "umt5"})
_VERSION = "1"
"""Raised when the numbers that encoding makes change."""


class WanCodec(Codec):
    """The VAE, the text encoder and the tokenizer of a ``Wan`` spec."""

    def __init__(self, spec: Wan) -> None:
        self._spec = spec

    def load(self, component: str, *, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """Load ``vae``, or ``t5`` together with its tokenizer.

        Raises:
            WeightsError: The files cannot be read or are something else.
        """
        path = self._path(component)
        if component == "vae":
            return load_vae(path, device=device, dtype=dtype)
        if component == "t5":
            return load_text_encoder(path, self._path("tokenizer"), device=device, dtype=dtype)
        raise ValueError(f"no component to load is called {component!r}")

    def encode(self, stage: Stage, models: Models, samples: Sequence[Sample]) -> list[Entry]:
        """Make ``latents`` of shape (C, F, H, W), or ``varlen_t5`` of shape (L, D), for every sample.

        Samples are encoded one by one: what is cached of one does not depend on its neighbours.
        """
        if stage.name == "latents":
            vae = _checked(models["vae"], AutoencoderKLWan)
            return [Entry(name=s.name, tensors={"latents": encode_pixels(vae, _pixels(s))}) for s in samples]
        text = _checked(models["t5"], TextEncoder)
        for issue in self.cut_captions(text, samples):
            logger.warning("%s", issue)
        return [Entry(name=s.name, tensors={f"{RAGGED}t5": text.encode(s.caption)}) for s in samples]

    def decode(self, models: Models, latents: Tensor) -> Tensor:
        """Return frames of shape (B, F, H, W, 3) as float32 in [0, 1]; latents have shape (B, C, F, H, W)."""
        return decode_latents(_checked(models["vae"], AutoencoderKLWan), latents)

    def identity(self, component: str) -> str:
        """Return the content of the component's files; for ``t5`` the tokenizer counts, too.

        Raises:
            WeightsError: The files cannot be read or are something else: told before anything is encoded with others.
        """
        if component in _KINDS:
            with open_checkpoint(self._path(component)) as checkpoint:
                expect(checkpoint, _KINDS[component], component=component)
        parts = [
            component,
            "t5 tokenizer" if component == "tokenizer" else "",
            _VERSION,
            identity(self._path(component)),
        ]
        if component == "t5":
            parts.append(identity(self._path("tokenizer")))
        return "-".join(part for part in parts if part)

    def cut_captions(self, text: TextEncoder, samples: Sequence[Sample]) -> list[Issue]:
        """Name the samples whose captions have more tokens than the encoder reads; the rest of them is cut off."""
        issues: list[Issue] = []
        for sample in samples:
            tokens = text.count(sample.caption)
            if tokens > text.max_tokens:
                message = f"the caption has {tokens} tokens, all after the first {text.max_tokens} are ignored"
                issues.append(Issue(sample.name, message, "shorten the caption"))
        return issues

    def _path(self, component: str) -> Path:
        path = self._spec.weight(component).resolve()
        return weights_path(path, dict(_SUBFOLDERS).get(component, component))


def _pixels(sample: Sample) -> Tensor:
    if sample.pixels is None:
        raise DataError("nothing to encode", [Issue(sample.name, "has no pixels")])
    return sample.pixels


def _checked(model: nn.Module, kind: type[M]) -> M:
    if not isinstance(model, kind):
        raise TypeError(f"a {kind.__name__} is needed, got a {type(model).__name__}")
    return model
