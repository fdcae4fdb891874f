"""Wan's transformer on diffusers' class, with the time path in float32 as its authors have it.

Shape suffixes: B batch, C channels, F latent frames, H and W latent height and width, L text tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

import attrs
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor, nn
from torch.nn import functional

from musubi.architecture import Denoiser, Expert, Prepare, StoredWeight, WeightHook
from musubi.architectures.wan.facts import DitFacts
from musubi.architectures.wan.fit import expect, expect_variant, legible
from musubi.architectures.wan.spec import TEXT_LENGTH
from musubi.architectures.wan.transformer import empty_transformer, places_in_time
from musubi.batch import RAGGED, Batch
from musubi.embedding.compute_type import compute_type
from musubi.weights.checkpoint import Checkpoint, open_checkpoint
from musubi.weights.load import load_into
from musubi.weights.place import weights_path
from musubi.weights.stored import stored_weights

if TYPE_CHECKING:
    from musubi.architectures.wan.spec import Wan

KEEP_FLOAT32 = (r"time_embedding\..*", r"time_projection\..*", r"(.*\.)?modulation", r"blocks\.\d+\.norm3\..*")
"""Small parameters whose rounding would be a systematic error of the modulation: original names."""

_SUBFOLDERS: Mapping[str, str] = MappingProxyType({"dit_low": "transformer_2"})
"""Where a pipeline of diffusers keeps what is not its first transformer."""

MASK = 4
"""Channels of ``latents_image`` that say which frames are given."""

CLIP_TOKENS = 257
"""Features that CLIP has of a picture: one for each of 16 x 16 patches, one for all."""

_LEAST = 1e-3
"""What a noise level is at least where it divides: samplers may tell the model whole thousandths, and so zero."""


@attrs.frozen(kw_only=True, eq=False)
class WanConditions:
    """What the transformer sees beside the latents: text embeddings (B, L, D), zeros beyond each caption's end.

    L is 512, or less if all captions are shorter: then the last place is zero in every item and stands for itself and
    all places up to 512. Further, where a task looks at something:

    ``beside`` (B, C, F, H, W) are more channels: a mask and latents of pictures, a control clip. ``clip`` (B, tokens,
    D) are CLIP's features of a picture, or of two, one after the other. ``places`` (B, F) are the latent frames' places
    in time. ``first`` (B, C, 1, H, W) are latents of a picture that take the place of the first frame.
    """

    text: Tensor
    beside: Tensor | None = None
    clip: Tensor | None = None
    places: Tensor | None = None
    first: Tensor | None = None

    def __len__(self) -> int:
        return len(self.text)


class WanDenoiser(Denoiser[WanConditions]):
    """The transformer of a ``Wan`` spec."""

    float32 = KEEP_FLOAT32

    def __init__(self, spec: Wan) -> None:
        self._spec = spec

    def load(
        self,
        expert: Expert,
        *,
        device: torch.device,
        dtype: torch.dtype,
        prepare: Prepare | None = None,
        on_weight: WeightHook | None = None,
    ) -> WanTransformer3DModel:
        """Load the transformer tensor by tensor, frozen; the time path stays in float32 and so do the rope tables.

        Raises:
            WeightsError: The file cannot be read, or is not of this task.
        """
        with self._open(expert) as checkpoint:
            model = self._build(checkpoint, expert)
            if prepare is not None:
                prepare(model)
            load_into(
                model,
                checkpoint,
                keys=self._spec.keys,
                device=device,
                dtype=dtype,
                on_weight=on_weight,
                keep_float32=KEEP_FLOAT32,
            )
        model.eval().requires_grad_(False)
        return model

    def empty(self, expert: Expert) -> WanTransformer3DModel:
        """Return the transformer on the meta device, sized as the file's header tells."""
        with self._open(expert) as checkpoint:
            return self._build(checkpoint, expert)

    def stored(self, expert: Expert) -> Mapping[str, StoredWeight]:
        """Return the matrices that the file holds in 8 bits."""
        with self._open(expert) as checkpoint:
            return stored_weights(checkpoint, self._spec.keys)

    def entry(self, model: nn.Module, latent_shape: Sequence[int]) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of latents, of what lies beside them, and of 512 tokens' embeddings."""
        _, width = model.get_parameter("condition_embedder.text_embedder.linear_1.weight").shape
        sight, (channels, *cells) = self._spec.sight, latent_shape
        beside: dict[str, tuple[int, ...]] = {}
        if sight.one_frame is not None:
            cells[0] = len(sight.one_frame.positions)
            beside["f_indices"] = (cells[0],)
        if sight.image:
            beside["latents_image"] = (channels + MASK, *cells)
        if sight.control:
            beside["latents_control"] = (channels, *cells)
        if sight.clip:
            beside["clip"] = _clip_shape(model)
        return {"latents": (channels, *cells), **beside, f"{RAGGED}t5": (TEXT_LENGTH, width)}

    def clean(self, batch: Batch) -> Tensor:
        """Return the latents, which the cache holds normalised, as float32 of shape (B, C, F, H, W)."""
        return batch["latents"].float()

    def conditions(self, batch: Batch) -> WanConditions:
        """Return the text embeddings with zeros after them, which the transformer attends to, and what else it sees.

        Raises:
            CacheError: The batch lacks what the task looks at.
        """
        sight = self._spec.sight
        return WanConditions(
            text=pad_text(batch.each("t5")),
            beside=self._beside(batch),
            clip=_features(batch["clip"], two=sight.last) if sight.clip else None,
            places=batch["f_indices"] if sight.one_frame is not None else batch.stacked.get("f_indices"),
            first=self._first(batch) if sight.start else None,
        )

    def velocity(self, model: nn.Module, x: Tensor, sigma: Tensor, cond: WanConditions) -> Tensor:
        """Return the predicted ``noise - clean`` as float32 of shape (B, C, F, H, W).

        Of a first frame that is given it is the straight way from ``x`` to it.
        """
        dtype, time_B = compute_type(model, "patch_embedding.weight"), sigma.to(x.device, torch.float32)
        first = None if cond.first is None else cond.first.to(x.device, torch.float32)
        seen = x if first is None else torch.cat([first, x[:, :, 1:]], dim=2)
        seen = seen.to(dtype)
        if cond.beside is not None:
            seen = torch.cat([seen, cond.beside.to(x.device, dtype)], dim=1)
        clip = None if cond.clip is None else _by_picture(model, cond.clip.to(x.device, dtype))
        timestep = 1000 * (time_B if first is None else _times(model, seen, time_B))
        with places_in_time(cond.places):
            out = model(seen, timestep, cond.text.to(x.device, dtype), clip, return_dict=False)
        predicted: Tensor = out[0].float()
        if first is None:
            return predicted
        away = (x[:, :, :1].float() - first) / time_B.clamp(min=_LEAST)[:, None, None, None, None]
        return torch.cat([away, predicted[:, :, 1:]], dim=2)

    def complete(self, latents: Tensor, cond: WanConditions) -> Tensor:
        """Return the latents with a given first frame as it is: samplers come near it, up to what they round."""
        if cond.first is None:
            return latents
        return torch.cat([cond.first.to(latents), latents[:, :, 1:]], dim=2)

    def _beside(self, batch: Batch) -> Tensor | None:
        """Return what is laid beside the noisy latents, as more channels.

        A control clip comes first; the picture beside it has no mask, and zeros, not mid grey, after the first frame.
        """
        sight = self._spec.sight
        if not sight.control:
            return batch["latents_image"] if sight.image else None
        control = batch["latents_control"]
        picture = torch.zeros_like(control)
        if sight.image:
            picture[:, :, :1] = batch["latents_image"][:, MASK:, :1]
        return torch.cat([control, picture], dim=1)

    def _first(self, batch: Batch) -> Tensor | None:
        """Return the given first frame: of a generation its picture, in training, where asked for, the item's own."""
        if "latents_image" in batch.stacked:
            return batch["latents_image"]
        return batch["latents"][:, :, :1] if self._spec.from_picture and "latents" in batch.stacked else None

    def _open(self, expert: Expert) -> Checkpoint:
        path = self._spec.weight(expert.component).resolve()
        return open_checkpoint(weights_path(path, _SUBFOLDERS.get(expert.component, "transformer")))

    def _build(self, checkpoint: Checkpoint, expert: Expert) -> WanTransformer3DModel:
        found = expect(checkpoint, "dit", component=expert.component)
        with legible(checkpoint):
            facts = DitFacts.of(checkpoint, found)
        expect_variant(checkpoint, found, facts, self._spec.published, self._spec.task)
        return empty_transformer(facts)


def pad_text(embeddings: Sequence[Tensor]) -> Tensor:
    """Stack embeddings of shape (tokens, D) with zeros after each, as (B, L, D), one place more than the longest has.

    Longer ones than 512 tokens are cut there, as the transformer never sees more.
    """
    length = min(TEXT_LENGTH, max(len(text) for text in embeddings) + 1)
    return torch.stack([functional.pad(text[:length], (0, 0, 0, max(0, length - len(text)))) for text in embeddings])


def _times(model: nn.Module, seen: Tensor, sigma_B: Tensor) -> Tensor:
    """Return a noise level for every token (B, tokens): zero in the given first frame, elsewhere the item's."""
    _, height, width = _inner(model).config["patch_size"]
    _, _, frames, rows, columns = seen.shape
    per_frame = (rows // height) * (columns // width)
    later = torch.arange(frames, device=seen.device).repeat_interleave(per_frame) > 0
    return sigma_B[:, None] * later


def _clip_shape(model: nn.Module) -> tuple[int, int]:
    """Return (tokens, width) of CLIP's features: of two pictures, where their places are learned, else of one."""
    width = model.get_parameter("condition_embedder.image_embedder.norm1.weight").shape[0]
    learned = dict(model.named_parameters()).get("condition_embedder.image_embedder.pos_embed")
    return (CLIP_TOKENS if learned is None else learned.shape[1]), width


def _features(clip: Tensor, *, two: bool) -> Tensor:
    """Return features (B, tokens, D), as musubi caches them; musubi-tuner keeps those of single frames by picture.

    Models of one picture take the first of several, those of two the first and the last, which may be the same.
    """
    if clip.ndim == 3:
        return clip
    return torch.cat([clip[:, 0], clip[:, -1]], dim=1) if two else clip[:, 0]


def _by_picture(model: nn.Module, clip: Tensor) -> Tensor:
    """Return features (B, tokens, D) as diffusers takes them: those of two pictures as two items."""
    two = _inner(model).config["pos_embed_seq_len"] is not None
    return clip.unflatten(1, (2, -1)).flatten(0, 1) if two else clip


def _inner(model: nn.Module) -> WanTransformer3DModel:
    """Return the transformer, also of a model that is wrapped for several processes."""
    return cast(WanTransformer3DModel, getattr(model, "module", model))
