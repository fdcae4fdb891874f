"""Qwen-Image's transformer as a denoiser: latents and pictures to change as tokens in a row.

Shape suffixes: B batch, C channels, F frames (one), H and W latent height and width, L text tokens, S image tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional

from musubi.architecture import Denoiser, Expert, Prepare, StoredWeight, WeightHook
from musubi.architectures.qwen_image.facts import DitFacts
from musubi.architectures.qwen_image.sizes import official
from musubi.architectures.qwen_image.templates import longest_text
from musubi.architectures.qwen_image.transformer import KEEP_FLOAT32, empty_transformer, load_transformer
from musubi.batch import RAGGED, Batch
from musubi.core.errors import Issue, WeightsError
from musubi.embedding.compute_type import compute_type
from musubi.embedding.controls import CONTROL, controls_of, framed
from musubi.embedding.patches import patched, unpatched
from musubi.weights.checkpoint import Checkpoint, open_checkpoint
from musubi.weights.place import weights_path
from musubi.weights.stored import stored_weights

if TYPE_CHECKING:
    from musubi.architectures.qwen_image.spec import QwenImage

_PATCH = (1, 2, 2)


@attrs.frozen(kw_only=True, eq=False)
class QwenImageConditions:
    """What the transformer sees beside the latents.

    ``text`` are the language model's states (B, L, width), zeros beyond each text's end, ``lengths`` how many of each
    count. ``controls`` are latents (B, C, 1, H, W) of pictures to change, each of its own size.
    """

    text: Tensor
    lengths: tuple[int, ...]
    controls: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.text)

    @property
    def mask(self) -> Tensor | None:
        """True (B, L) where there is text, on the host; None where all is."""
        if min(self.lengths) == self.text.shape[1]:
            return None
        return torch.arange(self.text.shape[1])[None] < torch.tensor(self.lengths)[:, None]


class QwenImageDenoiser(Denoiser[QwenImageConditions]):
    """The transformer of a ``QwenImage`` spec."""

    float32 = KEEP_FLOAT32

    def __init__(self, spec: QwenImage) -> None:
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
        """Load the transformer tensor by tensor, frozen; the time path stays in float32.

        Raises:
            WeightsError: The file cannot be read, or is not of this task.
        """
        with self._open(expert) as checkpoint:
            facts = self._facts(checkpoint)
            return load_transformer(
                checkpoint, device=device, dtype=dtype, prepare=prepare, on_weight=on_weight, facts=facts
            )

    def empty(self, expert: Expert) -> nn.Module:
        """Return the transformer on the meta device, sized as the file's header tells."""
        with self._open(expert) as checkpoint:
            return empty_transformer(self._facts(checkpoint))

    def stored(self, expert: Expert) -> Mapping[str, StoredWeight]:
        """Return the matrices that the file holds in 8 bits."""
        with self._open(expert) as checkpoint:
            return stored_weights(checkpoint, self._spec.keys)

    def entry(self, model: nn.Module, latent_shape: Sequence[int]) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of latents, of the longest text and, where pictures are changed, of one at its own size."""
        width = model.get_parameter("txt_in.weight").shape[1]
        shown: dict[str, tuple[int, ...]] = {}
        if self._spec.edits:
            shown[f"{CONTROL}_0"] = self._spec.geometry.latent_shape(official((1, 1), 1024 * 1024))
        tokens = longest_text(self._spec.task)
        return {"latents": tuple(latent_shape), **shown, f"{RAGGED}vl_embed": (tokens, width)}

    def clean(self, batch: Batch) -> Tensor:
        """Return the latents, which the cache holds normalised, as float32 of shape (B, C, 1, H, W)."""
        return framed(batch["latents"]).float()

    def conditions(self, batch: Batch) -> QwenImageConditions:
        """Return the texts, padded with zeros, and the latents of pictures to change.

        Raises:
            CacheError: The batch lacks what the task looks at.
        """
        texts = batch.each("vl_embed")
        longest = max(map(len, texts))
        return QwenImageConditions(
            text=torch.stack([functional.pad(text, (0, 0, 0, longest - len(text))) for text in texts]),
            lengths=tuple(map(len, texts)),
            controls=self._controls(batch),
        )

    def velocity(self, model: nn.Module, x: Tensor, sigma: Tensor, cond: QwenImageConditions) -> Tensor:
        """Return the predicted ``noise - clean`` as float32 of shape (B, C, 1, H, W)."""
        dtype = compute_type(model, "img_in.weight")
        pictures = [x, *(control.to(x.device) for control in cond.controls)]
        tokens_BSC = torch.cat([patched(picture.to(dtype), _PATCH) for picture in pictures], dim=1)
        predicted: Tensor = model(
            tokens_BSC,
            encoder_hidden_states=cond.text.to(x.device, dtype),
            encoder_hidden_states_mask=cond.mask,
            timestep=sigma.to(x.device, torch.float32),
            img_shapes=[(1, picture.shape[-2] // 2, picture.shape[-1] // 2) for picture in pictures],
        )
        own = predicted[:, : self._spec.geometry.tokens(x.shape)]
        return unpatched(own, x.shape[2:], _PATCH).float()

    def _controls(self, batch: Batch) -> tuple[Tensor, ...]:
        """Return the latents of pictures to change; raises ``CacheError`` where there must be one and is none."""
        if not self._spec.edits:
            return ()
        return controls_of(batch) or (batch[f"{CONTROL}_0"],)

    def _open(self, expert: Expert) -> Checkpoint:
        return open_checkpoint(weights_path(self._spec.weight(expert.component).resolve(), "transformer"))

    def _facts(self, checkpoint: Checkpoint) -> DitFacts:
        """Return the file's sizes, and what the task says of it.

        Raises:
            WeightsError: The file says that it is another model.
        """
        facts, published = DitFacts.of(checkpoint), self._spec.published
        if facts.layered:
            raise _misfit(checkpoint, "is Qwen-Image-Layered", published.title, "give another file")
        if facts.zero_time and not published.zero_time:
            hint = "it is for QwenImage.edit_2511()"
            raise _misfit(checkpoint, "is Qwen-Image-Edit-2511", published.title, hint)
        return attrs.evolve(facts, zero_time=published.zero_time)


def _misfit(checkpoint: Checkpoint, what: str, wanted: str, hint: str) -> WeightsError:
    return WeightsError("wrong weights for 'dit'", [Issue(checkpoint.label, f"{what}, not {wanted}", hint)])
