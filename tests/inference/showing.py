"""A toy that looks at pictures and clips: their mean colour joins the words, a clip to change is encoded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import attrs
import torch
from torch import Tensor
from torch.nn import functional as F

from musubi.architecture import Asked, Models, Roles, Stage
from musubi.batch import Batch, Sample
from musubi.inference.single_frame import SingleFrame
from musubi.testing.toy import ToyCodec, ToyConditions, ToyDenoiser
from tests.inference.watched import Watched, WatchedCodec, WatchedDenoiser


@attrs.frozen(kw_only=True)
class Showing(Watched):
    """A toy that may be given everything, and must be given what ``required`` names."""

    required: tuple[str, ...] = ()
    places: SingleFrame | None = None

    @property
    def request_roles(self) -> Roles:
        roles = ("image", "last", "control", "video")
        return Roles(required=self.required, optional=tuple(role for role in roles if role not in self.required))

    @property
    def request_stages(self) -> tuple[Stage, ...]:
        return (
            Stage(name="image", components=("vae",), reads=("pixels",)),
            Stage(name="control", components=("vae",), reads=("controls",)),
        )

    @property
    def target_position(self) -> int | None:
        return None if self.places is None else self.places.target

    def at_positions(self, target: int, controls: tuple[int, ...]) -> Self:
        return self.replace(places=SingleFrame(target=target, controls=controls))

    def codec(self) -> ShowingCodec:
        return ShowingCodec(self, self.alive, self.places)

    def denoiser(self) -> ShowingDenoiser:
        return ShowingDenoiser(self, self.alive)


@attrs.frozen
class ShowingCodec(WatchedCodec):
    places: SingleFrame | None

    def ask(self, stage: Stage, models: Models, asked: Asked) -> Mapping[str, Tensor]:
        if stage.name == "control":
            return {} if self.places is None else {"f_indices": torch.tensor(self.places.positions, dtype=torch.int32)}
        colours = [clip.float().mean((0, 1, 2)) for role, clips in sorted(asked.media.items()) for clip in clips]
        seen: dict[str, Tensor] = {"colours": torch.stack(colours).mean(0) / 255}
        if "video" in asked.media:
            resized = F.interpolate(asked.media["video"][0].movedim(-1, 1).float(), asked.size[::-1])
            sample = Sample(name="video", pixels=resized.movedim(1, -1).to(torch.uint8))
            (entry,) = ToyCodec.encode(self, Stage(name="latents", components=("vae",), reads=()), models, [sample])
            seen["latents"] = entry.tensors["latents"]
        return seen


@attrs.frozen
class ShowingDenoiser(WatchedDenoiser):
    def conditions(self, batch: Batch) -> ToyConditions:
        text = ToyDenoiser.conditions(self, batch).text
        if "colours" in batch.stacked:
            text[:, :3] += 5 * batch["colours"]
        return ToyConditions(text)
