"""Pixels, pictures to change and captions to latents and embeddings, and latents back to pixels.

diffusers and transformers are imported where a model is needed: to find a cache unchanged takes neither of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from musubi.architecture import Asked, CaptionLengths, Codec, Models, Prepare, Stage, StoredWeight, WeightHook
from musubi.architectures.flux_kontext.sizes import preferred
from musubi.architectures.flux_kontext.text_facts import ClipFacts, T5Facts
from musubi.architectures.flux_kontext.vae_facts import VaeFacts
from musubi.batch import Entry, Sample
from musubi.data.cut_captions import cut_captions
from musubi.data.media.frames import covered
from musubi.data.media.pictures import control_batches, picture_batch, picture_size
from musubi.embedding.controls import numbered
from musubi.weights.checked import checked
from musubi.weights.checkpoint import Checkpoint, open_checkpoint
from musubi.weights.identity import identity
from musubi.weights.place import weights_path

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    from musubi.architectures.flux_kontext.spec import FluxKontext

logger = logging.getLogger(__name__)

_SUBFOLDERS: Mapping[str, str] = MappingProxyType(
    {"t5": "text_encoder_2", "t5_tokenizer": "tokenizer_2", "clip_l": "text_encoder", "clip_l_tokenizer": "tokenizer"}
)
_TOKENIZERS: Mapping[str, str] = MappingProxyType({"t5": "t5_tokenizer", "clip_l": "clip_l_tokenizer"})
_FACTS: Mapping[str, Callable[[Checkpoint], object]] = MappingProxyType(
    {"vae": VaeFacts.of, "t5": T5Facts.of, "clip_l": ClipFacts.of}
)
_VERSION = "1"
"""Raised when the numbers that encoding makes change."""


class FluxKontextCodec(Codec):
    """The VAE and the two text encoders with their tokenizers of a ``FluxKontext`` spec."""

    def __init__(self, spec: FluxKontext) -> None:
        self.spec = spec

    def load(
        self,
        component: str,
        *,
        device: torch.device,
        dtype: torch.dtype,
        prepare: Prepare | None = None,
        on_weight: WeightHook | None = None,
    ) -> nn.Module:
        """Load ``vae``, or ``t5`` or ``clip_l`` together with its tokenizer.

        Raises:
            WeightsError: The files cannot be read or are something else.
        """
        path = self._path(component)
        if component == "vae":
            from musubi.architectures.flux_kontext.vae import load_vae

            return load_vae(path, device=device, dtype=dtype, prepare=prepare, on_weight=on_weight)
        if component == "t5":
            from musubi.architectures.flux_kontext.t5 import load_t5

            words = self._path("t5_tokenizer")
            return load_t5(path, words, device=device, dtype=dtype, prepare=prepare, on_weight=on_weight)
        if component == "clip_l":
            from musubi.architectures.flux_kontext.clip import load_clip

            return load_clip(path, self._path("clip_l_tokenizer"), device=device, dtype=dtype)
        raise ValueError(f"no component to load is called {component!r}")

    def stored(self, component: str) -> Mapping[str, StoredWeight]:
        """Return the matrices of T5 that its file holds in 8 bits; raises ``WeightsError``."""
        if component != "t5":
            return {}
        from musubi.architectures.flux_kontext.t5 import stored_t5

        return stored_t5(self._path(component))

    def encode(self, stage: Stage, models: Models, samples: Sequence[Sample]) -> list[Entry]:
        """Make ``latents`` with ``latents_control_0`` and on, or ``t5_vec`` (512, D) and ``clip_l_pooler`` (D).

        Raises:
            DataError: Samples have no pixels, or no picture to change; all are named.
        """
        made = self._latents(models, samples) if stage.name == "latents" else self._texts(models, samples)
        each = [{name: tensor[n].clone() for name, tensor in made.items()} for n in range(len(samples))]
        return [Entry(name=s.name, tensors=t) for s, t in zip(samples, each, strict=True)]

    def ask(self, stage: Stage, models: Models, asked: Asked) -> Mapping[str, Tensor]:
        """Make ``latents_control_0`` and on, each picture scaled to cover its size, and cropped.

        The size is the request's, or of those the model was trained with the one nearest to the picture's shape.
        """
        from musubi.architectures.flux_kontext.vae import encode_pixels

        pictures = asked.media.get("control", ())
        sizes = asked.control_sizes or tuple(preferred(picture_size(picture)) for picture in pictures)
        shown = [covered(picture[:1], size)[None] for picture, size in zip(pictures, sizes, strict=True)]
        return numbered([encode_pixels(_vae(models), picture)[0] for picture in shown])

    def decode(self, models: Models, latents: Tensor) -> Tensor:
        """Return frames of shape (B, 1, H, W, 3) as float32 in [0, 1]; latents have shape (B, C, 1, H, W)."""
        from musubi.architectures.flux_kontext.vae import decode_latents

        return decode_latents(_vae(models), latents)

    def identity(self, component: str) -> str:
        """Return the content of the component's files; a tokenizer counts with its encoder.

        Raises:
            WeightsError: The files cannot be read or are something else: told before anything is encoded with others.
        """
        path = self._path(component)
        if component in _FACTS:
            with open_checkpoint(path) as checkpoint:
                _FACTS[component](checkpoint)
        parts = [component, _VERSION, identity(path)]
        if component in _TOKENIZERS:
            parts.append(identity(self._path(_TOKENIZERS[component])))
        return "-".join(parts)

    def caption_lengths(self, captions: Sequence[str]) -> CaptionLengths:
        """Count T5's tokens of captions, of which CLIP reads the first 77 anyway; only the tokenizer is loaded.

        Raises:
            WeightsError: The tokenizer cannot be read.
        """
        from musubi.architectures.flux_kontext.t5 import caption_lengths, load_tokenizer

        return caption_lengths(load_tokenizer(self._path("t5_tokenizer")), captions)

    def _latents(self, models: Models, samples: Sequence[Sample]) -> dict[str, Tensor]:
        from musubi.architectures.flux_kontext.vae import encode_pixels

        vae = _vae(models)
        shown = [encode_pixels(vae, pictures) for pictures in control_batches(samples)]
        return {"latents": encode_pixels(vae, picture_batch(samples)), **numbered(shown)}

    def _texts(self, models: Models, samples: Sequence[Sample]) -> dict[str, Tensor]:
        from musubi.architectures.flux_kontext.clip import ClipL
        from musubi.architectures.flux_kontext.t5 import T5, caption_lengths

        t5, clip = checked(models["t5"], T5), checked(models["clip_l"], ClipL)
        captions = [sample.caption for sample in samples]
        for issue in cut_captions(samples, caption_lengths(t5.tokenizer, captions)):
            logger.warning("%s", issue)
        return {"t5_vec": t5.encode(captions), "clip_l_pooler": clip.encode(captions)}

    def _path(self, component: str) -> Path:
        return weights_path(self.spec.weight(component).resolve(), _SUBFOLDERS.get(component, component))


def _vae(models: Models) -> AutoencoderKL:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    vae: AutoencoderKL = checked(models["vae"], AutoencoderKL)
    return vae
