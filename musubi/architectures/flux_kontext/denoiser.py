"""FLUX.1 Kontext's transformer as a denoiser: latents and pictures to change as tokens in a row.

Shape suffixes: B batch, C channels, H and W latent height and width, L text tokens, S image tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor, nn

from musubi.architecture import Denoiser, Expert, Prepare, StoredWeight, WeightHook
from musubi.architectures.flux_kontext.facts import DitFacts
from musubi.architectures.flux_kontext.sizes import preferred
from musubi.architectures.flux_kontext.text_facts import T5_TOKENS
from musubi.architectures.flux_kontext.transformer import KEEP_FLOAT32, empty_transformer, load_transformer
from musubi.batch import GUIDANCE, Batch
from musubi.embedding.compute_type import compute_type
from musubi.embedding.controls import CONTROL, controls_of, framed
from musubi.embedding.patches import patched, unpatched
from musubi.weights.checkpoint import Checkpoint, open_checkpoint
from musubi.weights.place import weights_path
from musubi.weights.stored import stored_weights

if TYPE_CHECKING:
    from musubi.architectures.flux_kontext.spec import FluxKontext

_PATCH = (1, 2, 2)


@attrs.frozen(kw_only=True, eq=False)
class FluxKontextConditions:
    """What the transformer sees beside the latents.

    ``text`` are T5's embeddings (B, L, D), ``pooled`` CLIP's vectors (B, D), ``guidance`` the scale (B,) it is told,
    ``controls`` latents (B, C, 1, H, W) of pictures to change, each of its own size.
    """

    text: Tensor
    pooled: Tensor
    guidance: Tensor
    controls: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.text)


class FluxKontextDenoiser(Denoiser[FluxKontextConditions]):
    """The transformer of a ``FluxKontext`` spec."""

    float32 = KEEP_FLOAT32

    def __init__(self, spec: FluxKontext) -> None:
        self._spec = spec

    def load(
        self,
        expert: Expert,
        *,
        device: torch.device,
        dtype: torch.dtype,
        prepare: Prepare | None = None,
        on_weight: WeightHook | None = None,
    ) -> nn.Module:
        """Load the transformer tensor by tensor, frozen; time, guidance and pooled text stay in float32.

        Raises:
            WeightsError: The file cannot be read, or is no FLUX.1 transformer of Kontext's inputs.
        """
        with self._open(expert) as checkpoint:
            return load_transformer(checkpoint, device=device, dtype=dtype, prepare=prepare, on_weight=on_weight)

    def empty(self, expert: Expert) -> nn.Module:
        """Return the transformer on the meta device, sized as the file's header tells."""
        with self._open(expert) as checkpoint:
            return empty_transformer(DitFacts.of(checkpoint))

    def stored(self, expert: Expert) -> Mapping[str, StoredWeight]:
        """Return the matrices that the file holds in 8 bits."""
        with self._open(expert) as checkpoint:
            return stored_weights(checkpoint, self._spec.keys)

    def entry(self, model: nn.Module, latent_shape: Sequence[int]) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of latents, of a picture to change at its own size, and of the text."""
        width = model.get_parameter("context_embedder.weight").shape[1]
        pooled = model.get_parameter("time_text_embed.text_embedder.linear_1.weight").shape[1]
        shown = self._spec.geometry.latent_shape(preferred((1, 1)))
        return {
            "latents": tuple(latent_shape),
            f"{CONTROL}_0": shown,
            "t5_vec": (T5_TOKENS, width),
            "clip_l_pooler": (pooled,),
        }

    def clean(self, batch: Batch) -> Tensor:
        """Return the latents, which the cache holds scaled, as float32 of shape (B, C, 1, H, W)."""
        return framed(batch["latents"]).float()

    def conditions(self, batch: Batch) -> FluxKontextConditions:
        """Return texts, latents of pictures to change, and the guidance: the spec's own in training.

        Raises:
            CacheError: The batch lacks the text.
        """
        text = batch["t5_vec"]
        usual = torch.full((len(text),), self._spec.training_guidance, device=text.device)
        return FluxKontextConditions(
            text=text,
            pooled=batch["clip_l_pooler"],
            guidance=batch.stacked.get(GUIDANCE, usual).float(),
            controls=controls_of(batch),
        )

    def velocity(self, model: nn.Module, x: Tensor, sigma: Tensor, cond: FluxKontextConditions) -> Tensor:
        """Return the predicted ``noise - clean`` as float32 of shape (B, C, 1, H, W)."""
        dtype = compute_type(model, "x_embedder.weight")
        pictures = [x, *(control.to(x.device) for control in cond.controls)]
        predicted: Tensor = model(
            torch.cat([patched(picture.to(dtype), _PATCH) for picture in pictures], dim=1),
            encoder_hidden_states=cond.text.to(x.device, dtype),
            pooled_projections=cond.pooled.to(x.device, dtype),
            timestep=sigma.to(x.device, torch.float32),
            img_ids=torch.cat([image_ids(picture, index) for index, picture in enumerate(pictures)]),
            txt_ids=x.new_zeros(cond.text.shape[1], 3),
            guidance=cond.guidance.to(x.device),
        )
        own = predicted[:, : self._spec.geometry.tokens(x.shape)]
        return unpatched(own, x.shape[2:], _PATCH).float()

    def _open(self, expert: Expert) -> Checkpoint:
        return open_checkpoint(weights_path(self._spec.weight(expert.component).resolve(), "transformer"))


def image_ids(latents: Tensor, index: int) -> Tensor:
    """Return index, row and column (S, 3), in float32, of the tokens of latents (B, C, 1, H, W).

    The picture that is made has index 0, those it is made from have 1, 2 and so on, each with rows and columns of its
    own from 0 (Black Forest Labs 2025, "FLUX.1 Kontext", section 3).
    """
    rows, columns = latents.shape[-2] // 2, latents.shape[-1] // 2
    places = torch.zeros(rows, columns, 3, device=latents.device)
    places[..., 0] = index
    places[..., 1] = torch.arange(rows, device=latents.device)[:, None]
    places[..., 2] = torch.arange(columns, device=latents.device)
    return places.flatten(0, 1)
