"""Pixels, pictures and captions to latents, features and embeddings, and latents back to pixels.

diffusers and transformers are imported where a model is needed: to find a cache unchanged takes neither of them.
Shape suffixes: B batch, C channels, F frames, H height, W width, L tokens, D width.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from musubi.architecture import Asked, CaptionLengths, Codec, Models, Prepare, Stage, StoredWeight, WeightHook
from musubi.architectures.wan.detect import Kind
from musubi.architectures.wan.fit import expect
from musubi.batch import RAGGED, Entry, Sample
from musubi.data.cut_captions import cut_captions
from musubi.weights.checked import checked
from musubi.weights.checkpoint import open_checkpoint
from musubi.weights.identity import identity
from musubi.weights.place import weights_path

if TYPE_CHECKING:
    from musubi.architectures.wan.conditions import Encode
    from musubi.architectures.wan.encoding import Describe
    from musubi.architectures.wan.sight import Sight
    from musubi.architectures.wan.spec import Wan
    from musubi.architectures.wan.vae import VaeKind

logger = logging.getLogger(__name__)

_SUBFOLDERS: Mapping[str, str] = MappingProxyType({"t5": "text_encoder", "clip": "image_encoder"})
_VERSION = "1"
"""Raised when the numbers that encoding makes change."""


class WanCodec(Codec):
    """The VAE, the text encoder with its tokenizer, and CLIP, where it is looked at, of a ``Wan`` spec."""

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
        """Load ``vae``, ``clip``, or ``t5`` together with its tokenizer.

        CLIP runs in float16, as published, where bfloat16 is asked for.

        Raises:
            WeightsError: The files cannot be read or are something else.
        """
        path = self._path(component)
        if component == "vae":
            from musubi.architectures.wan.vae import load_vae

            kind = self._vae
            return load_vae(path, kind=kind, device=device, dtype=dtype, prepare=prepare, on_weight=on_weight)
        if component == "clip":
            from musubi.architectures.wan.clip import load_clip

            return load_clip(path, device=device, dtype=torch.float16 if dtype == torch.bfloat16 else dtype)
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
        """Make ``latents`` with what lies beside them, ``clip``, or ``varlen_t5`` of shape (L, D), for every sample.

        All samples go through a model together; on float32 that moves numbers by less than 1e-5.

        Raises:
            DataError: Samples have no pixels, or lack what the model follows; all are named.
        """
        from musubi.architectures.wan.encoding import describe_samples, encode_samples

        if stage.name == "latents":
            tensors = encode_samples(_encoder(models), self._sight, samples)
        elif stage.name == "clip":
            tensors = describe_samples(_describer(models), self._sight, samples)
        else:
            tensors = self._texts(models, samples)
        return [Entry(name=s.name, tensors=t) for s, t in zip(samples, tensors, strict=True)]

    def ask(self, stage: Stage, models: Models, asked: Asked) -> Mapping[str, Tensor]:
        """Make ``latents_image`` (with ``f_indices``), ``clip``, ``latents_control``, or ``latents`` of a ``video``.

        Pictures and clips are scaled to cover exactly the size that is asked for, and cropped.
        """
        from musubi.architectures.wan.encoding import ask_clip, ask_control, ask_image, ask_video

        if stage.name == "image":
            return ask_image(_encoder(models), self._sight, asked)
        if stage.name == "clip":
            return ask_clip(_describer(models), self._sight, asked)
        if stage.name == "control":
            return ask_control(_encoder(models), self._sight, asked)
        return ask_video(_encoder(models), asked) if stage.name == "video" else {}

    def decode(self, models: Models, latents: Tensor) -> Tensor:
        """Return frames of shape (B, F, H, W, 3) as float32 in [0, 1]; latents have shape (B, C, F, H, W)."""
        from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

        from musubi.causal_vae.coding import decode_latents

        return decode_latents(checked(models["vae"], AutoencoderKLWan), latents)

    def identity(self, component: str) -> str:
        """Return the content of the component's files, and what is made with it; for ``t5`` the tokenizer counts, too.

        Raises:
            WeightsError: The files cannot be read or are something else: told before anything is encoded with others.
        """
        kinds: Mapping[str, Kind] = {"vae": self._vae, "t5": "umt5", "clip": "clip"}
        if component in kinds:
            with open_checkpoint(self._path(component)) as checkpoint:
                expect(checkpoint, kinds[component], component=component)
        parts = [
            component,
            self._sight.identity if component in ("vae", "clip") else "",
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

    @property
    def _vae(self) -> VaeKind:
        return "vae22" if self._sight.start else "vae"

    @property
    def _sight(self) -> Sight:
        return self._spec.sight

    def _texts(self, models: Models, samples: Sequence[Sample]) -> list[dict[str, Tensor]]:
        from musubi.architectures.wan.text import TextEncoder, caption_lengths

        text = checked(models["t5"], TextEncoder)
        captions = [sample.caption for sample in samples]
        for issue in cut_captions(samples, caption_lengths(text.tokenizer, captions)):
            logger.warning("%s", issue)
        return [{f"{RAGGED}t5": embeddings} for embeddings in text.encode(captions)]

    def _path(self, component: str) -> Path:
        path = self._spec.weight(component).resolve()
        return weights_path(path, _SUBFOLDERS.get(component, component))


def _encoder(models: Models) -> Encode:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    from musubi.causal_vae.coding import encode_video

    return partial(encode_video, checked(models["vae"], AutoencoderKLWan))


def _describer(models: Models) -> Describe:
    from transformers import CLIPVisionModel

    from musubi.architectures.wan.clip import encode_images

    return partial(encode_images, checked(models["clip"], CLIPVisionModel))
