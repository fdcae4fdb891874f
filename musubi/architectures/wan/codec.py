"""Pixels and captions to latents and text embeddings, and latents back to pixels.

diffusers and transformers are imported where a model is needed: to find a cache unchanged takes neither of them.
Shape suffixes: B batch, C channels, F frames, H height, W width, L tokens, D width.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from musubi.architecture import CaptionLengths, Codec, Models, Prepare, Stage, StoredWeight, WeightHook
from musubi.architectures.wan.detect import Kind
from musubi.architectures.wan.fit import expect
from musubi.architectures.wan.place import weights_path
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

    def load(
        self,
        component: str,
        *,
        device: torch.device,
        dtype: torch.dtype,
        prepare: Prepare | None = None,
        on_weight: WeightHook | None = None,
    ) -> nn.Module:
        """Load ``vae``, or ``t5`` together with its tokenizer.

        Raises:
            WeightsError: The files cannot be read or are something else.
        """
        path = self._path(component)
        if component == "vae":
            from musubi.architectures.wan.vae import load_vae

            return load_vae(path, device=device, dtype=dtype, prepare=prepare, on_weight=on_weight)
        if component == "t5":
            from musubi.architectures.wan.text import load_text_encoder

            return load_text_encoder(
                path, self._path("tokenizer"), device=device, dtype=dtype, prepare=prepare, on_weight=on_weight
            )
        raise ValueError(f"no component to load is called {component!r}")

    def stored(self, component: str) -> Mapping[str, StoredWeight]:
        """Return the matrices of the text encoder that its file holds in 8 bits; raises ``WeightsError``."""
        if component != "t5":
            return {}
        from musubi.architectures.wan.text import stored_umt5

        return stored_umt5(self._path(component))

    def encode(self, stage: Stage, models: Models, samples: Sequence[Sample]) -> list[Entry]:
        """Make ``latents`` of shape (C, F, H, W), or ``varlen_t5`` of shape (L, D), for every sample.

        All samples go through the VAE, or the text encoder, together; on float32 that moves numbers by less than 1e-5.
        """
        tensors = self._latents(models, samples) if stage.name == "latents" else self._texts(models, samples)
        return [Entry(name=s.name, tensors=t) for s, t in zip(samples, tensors, strict=True)]

    def decode(self, models: Models, latents: Tensor) -> Tensor:
        """Return frames of shape (B, F, H, W, 3) as float32 in [0, 1]; latents have shape (B, C, F, H, W)."""
        from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

        from musubi.architectures.wan.vae import decode_latents

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

    def caption_lengths(self, captions: Sequence[str]) -> CaptionLengths:
        """Count the tokens of captions; only the tokenizer is loaded.

        Raises:
            WeightsError: The tokenizer cannot be read.
        """
        from musubi.architectures.wan.text import caption_lengths, load_tokenizer

        return caption_lengths(load_tokenizer(self._path("tokenizer")), captions)

    def _latents(self, models: Models, samples: Sequence[Sample]) -> list[dict[str, Tensor]]:
        from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

        from musubi.architectures.wan.vae import encode_pixels

        vae = _checked(models["vae"], AutoencoderKLWan)
        return [{"latents": latents} for latents in encode_pixels(vae, _pixels(samples))]

    def _texts(self, models: Models, samples: Sequence[Sample]) -> list[dict[str, Tensor]]:
        from musubi.architectures.wan.text import TextEncoder, caption_lengths

        text = _checked(models["t5"], TextEncoder)
        captions = [sample.caption for sample in samples]
        for issue in _cut(samples, caption_lengths(text.tokenizer, captions)):
            logger.warning("%s", issue)
        return [{f"{RAGGED}t5": embeddings} for embeddings in text.encode(captions)]

    def _path(self, component: str) -> Path:
        path = self._spec.weight(component).resolve()
        return weights_path(path, dict(_SUBFOLDERS).get(component, component))


def _pixels(samples: Sequence[Sample]) -> Tensor:
    """Return the pixels (B, F, H, W, 3) of samples of equal shapes."""
    empty = [Issue(sample.name, "has no pixels") for sample in samples if sample.pixels is None]
    if empty:
        raise DataError("nothing to encode", empty)
    return torch.stack([sample.pixels for sample in samples if sample.pixels is not None])


def _cut(samples: Sequence[Sample], lengths: CaptionLengths) -> list[Issue]:
    """Say which captions are longer than what is read of them, each once, by the name of the first that has it."""
    issues: dict[str, Issue] = {}
    for sample, tokens in zip(samples, lengths.tokens, strict=True):
        if tokens > lengths.limit:
            message = f"the caption has {tokens} tokens, all after the first {lengths.limit} are ignored"
            issues.setdefault(sample.caption, Issue(sample.name, message, "shorten the caption"))
    return list(issues.values())


def _checked(model: nn.Module, kind: type[M]) -> M:
    if not isinstance(model, kind):
        raise TypeError(f"a {kind.__name__} is needed, got a {type(model).__name__}")
    return model
