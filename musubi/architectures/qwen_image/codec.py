"""Pixels, pictures to change and captions to latents and states of the language model, and latents back to pixels.

diffusers and transformers are imported where a model is needed: to find a cache unchanged takes neither of them.
Shape suffixes: B batch, C channels, F frames (one), H height, W width.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from musubi.architecture import Asked, CaptionLengths, Codec, Models, Prepare, Stage, StoredWeight, WeightHook
from musubi.architectures.qwen_image.sizes import official
from musubi.architectures.qwen_image.vae_facts import vae_facts
from musubi.architectures.qwen_image.vl_facts import expect_vision_language
from musubi.batch import RAGGED, Entry, Sample
from musubi.data.cut_captions import cut_captions
from musubi.data.media.frames import covered
from musubi.data.media.pictures import control_batches, picture_batch, picture_size
from musubi.embedding.controls import numbered
from musubi.weights.checked import checked
from musubi.weights.checkpoint import open_checkpoint
from musubi.weights.identity import identity
from musubi.weights.place import weights_path

if TYPE_CHECKING:
    from musubi.architectures.qwen_image.spec import QwenImage
    from musubi.causal_vae.coding import CausalVae

logger = logging.getLogger(__name__)

_AREA = 1024 * 1024
"""Pixels of a picture to change as the VAE is shown it in a generation, unless the request says another size."""

_VERSION = "1"
"""Raised when the numbers that encoding makes change."""


class QwenImageCodec(Codec):
    """The VAE and the language model with its tokenizer of a ``QwenImage`` spec."""

    def __init__(self, spec: QwenImage) -> None:
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
        """Load ``vae``, or ``text_encoder`` together with its tokenizer.

        Raises:
            WeightsError: The files cannot be read or are something else.
        """
        path = self._path(component)
        if component == "vae":
            from musubi.architectures.qwen_image.vae import load_vae

            return load_vae(path, device=device, dtype=dtype, prepare=prepare, on_weight=on_weight)
        if component == "text_encoder":
            from musubi.architectures.qwen_image.vl import load_vision_language

            return load_vision_language(
                path, self._path("tokenizer"), device=device, dtype=dtype, prepare=prepare, on_weight=on_weight
            )
        raise ValueError(f"no component to load is called {component!r}")

    def stored(self, component: str) -> Mapping[str, StoredWeight]:
        """Return the matrices of the language model that its file holds in 8 bits; raises ``WeightsError``."""
        if component != "text_encoder":
            return {}
        from musubi.architectures.qwen_image.vl import stored_vision_language

        return stored_vision_language(self._path(component))

    def encode(self, stage: Stage, models: Models, samples: Sequence[Sample]) -> list[Entry]:
        """Make ``latents`` with ``latents_control_0`` and on, or ``varlen_vl_embed`` of shape (L, D), for every sample.

        Raises:
            DataError: Samples have no pixels, or no picture to change; all are named.
        """
        tensors = self._latents(models, samples) if stage.name == "latents" else self._texts(models, samples)
        return [Entry(name=s.name, tensors=t) for s, t in zip(samples, tensors, strict=True)]

    def ask(self, stage: Stage, models: Models, asked: Asked) -> Mapping[str, Tensor]:
        """Make ``latents_control_0`` and on, each picture scaled to cover its size, and cropped.

        The size is the request's, or the authors' own: the picture's aspect ratio at a megapixel, sides in 32 pixels.
        """
        pictures = asked.media.get("control", ())
        sizes = asked.control_sizes or tuple(official(picture_size(picture), _AREA) for picture in pictures)
        shown = [covered(picture[:1], size)[None] for picture, size in zip(pictures, sizes, strict=True)]
        return {name: latents[0] for name, latents in numbered(_encoded(_vae(models), shown)).items()}

    def decode(self, models: Models, latents: Tensor) -> Tensor:
        """Return frames of shape (B, 1, H, W, 3) as float32 in [0, 1]; latents have shape (B, C, 1, H, W)."""
        from musubi.causal_vae.coding import decode_latents

        return decode_latents(_vae(models), latents)

    def identity(self, component: str) -> str:
        """Return the content of the component's files, and what is made with it; the tokenizer counts with the model.

        Raises:
            WeightsError: The files cannot be read or are something else: told before anything is encoded with others.
        """
        path = self._path(component)
        if component == "tokenizer":
            return f"{component}-{identity(path)}"
        with open_checkpoint(path) as checkpoint:
            if component == "vae":
                vae_facts(checkpoint)
            else:
                expect_vision_language(checkpoint)
        if component == "vae":
            return f"{component}-{_VERSION}-{identity(path)}"
        shows = self.spec.task if self.spec.edits else "text"
        return f"{component}-{shows}-{_VERSION}-{identity(path)}-{identity(self._path('tokenizer'))}"

    def caption_lengths(self, captions: Sequence[str]) -> CaptionLengths | None:
        """Count the tokens of captions; only the tokenizer is loaded. There is no limit where pictures are shown.

        Raises:
            WeightsError: The tokenizer cannot be read.
        """
        from musubi.architectures.qwen_image.vl import caption_lengths, load_tokenizer

        return caption_lengths(load_tokenizer(self._path("tokenizer")), self.spec.task, captions)

    def _latents(self, models: Models, samples: Sequence[Sample]) -> list[dict[str, Tensor]]:
        from musubi.causal_vae.coding import encode_pixels

        vae = _vae(models)
        made = {"latents": encode_pixels(vae, picture_batch(samples))}
        if self.spec.edits:
            made |= numbered(_encoded(vae, control_batches(samples)))
        return [{name: tensor[n].clone() for name, tensor in made.items()} for n in range(len(samples))]

    def _texts(self, models: Models, samples: Sequence[Sample]) -> list[dict[str, Tensor]]:
        from musubi.architectures.qwen_image.vl import VisionLanguage, caption_lengths, encode_texts

        model, task = checked(models["text_encoder"], VisionLanguage), self.spec.task
        captions = [sample.caption for sample in samples]
        lengths = caption_lengths(model.tokenizer, task, captions)
        for issue in cut_captions(samples, lengths) if lengths is not None else ():
            logger.warning("%s", issue)
        pictures = [tuple(sample.controls.get("control", ())) if self.spec.edits else () for sample in samples]
        return [{f"{RAGGED}vl_embed": states} for states in encode_texts(model, task, captions, pictures)]

    def _path(self, component: str) -> Path:
        return weights_path(self.spec.weight(component).resolve(), component)


def _vae(models: Models) -> CausalVae:
    from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage

    vae: AutoencoderKLQwenImage = checked(models["vae"], AutoencoderKLQwenImage)
    return vae


def _encoded(vae: CausalVae, pictures: Sequence[Tensor]) -> list[Tensor]:
    """Return the latents (B, C, 1, H, W) of pictures (B, 1, H, W, 3), each of its own size."""
    from musubi.causal_vae.coding import encode_pixels

    return [encode_pixels(vae, picture) for picture in pictures]
