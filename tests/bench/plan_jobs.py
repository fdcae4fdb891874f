"""Every family's transformer on the meta device with the inputs of one training item, at any size."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager

import attrs
import torch
from torch import Tensor, nn

from musubi import FluxKontext, FramePack, HunyuanVideo, LoRA, QwenImage, Wan
from musubi.architecture import Architecture, Size
from musubi.architectures.flux_kontext import transformer as flux
from musubi.architectures.flux_kontext.facts import DitFacts as FluxFacts
from musubi.architectures.framepack import transformer as framepack
from musubi.architectures.framepack.facts import DitFacts as FramePackFacts
from musubi.architectures.hunyuan_video import transformer as hunyuan
from musubi.architectures.hunyuan_video.facts import DitFacts as HunyuanFacts
from musubi.architectures.qwen_image import transformer as qwen
from musubi.architectures.qwen_image.facts import DitFacts as QwenFacts
from musubi.architectures.wan import transformer as wan
from musubi.architectures.wan.denoiser import KEEP_FLOAT32
from musubi.architectures.wan.facts import DitFacts as WanFacts
from musubi.architectures.wan.facts import published_facts


@attrs.frozen(kw_only=True, eq=False)
class Job:
    """A model, what stays float32 in it, the latent of an item, and what asks it for a velocity in bfloat16.

    ``random`` draws the inputs: empty ones for fake tensors, random ones to compute with.
    """

    spec: Architecture
    model: nn.Module
    float32: Sequence[str]
    latents: tuple[int, ...]
    ask: Callable[[nn.Module], Tensor]

    def predict(self, model: nn.Module, *, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        """Return a prediction as training asks for it."""
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            return self.ask(model).float()

    def attach(self, network: LoRA) -> Callable[[nn.Module], AbstractContextManager[Iterable[nn.Parameter]]]:
        """Return what puts adapters on a model."""

        @contextmanager
        def attached(model: nn.Module) -> Generator[Iterable[nn.Parameter]]:
            generator = torch.Generator().manual_seed(0)
            trained = network.prepare(model, keys=self.spec.keys, layout=self.spec.layout, generator=generator)
            with trained.attached(model):
                yield list(trained.parameters())

        return attached


def qwen_image(facts: QwenFacts | None = None, *, size: Size = (1024, 1024), text: int = 300) -> Job:
    """Return Qwen-Image."""
    facts = facts or QwenFacts()
    columns, rows = size[0] // 16, size[1] // 16

    def ask(model: nn.Module) -> Tensor:
        kind = model.get_parameter("img_in.weight").dtype
        predicted: Tensor = model(
            torch.ones(1, rows * columns, facts.in_channels, dtype=kind),
            encoder_hidden_states=torch.ones(1, text, facts.text_dim, dtype=kind),
            timestep=torch.ones(1),
            img_shapes=[(1, rows, columns)],
        )
        return predicted

    spec = QwenImage.text_to_image()
    return Job(
        spec=spec,
        model=qwen.empty_transformer(facts),
        float32=qwen.KEEP_FLOAT32,
        latents=spec.geometry.latent_shape(size),
        ask=ask,
    )


def wan_video(facts: WanFacts | None = None, *, size: Size = (832, 480), frames: int = 81, text: int = 512) -> Job:
    """Return Wan 2.1 text to video, of 14B."""
    spec = Wan.t2v_14b()
    facts = facts or published_facts(spec.published)
    latents = spec.geometry.latent_shape(size, frames)

    def ask(model: nn.Module) -> Tensor:
        kind = model.get_parameter("patch_embedding.weight").dtype
        states = torch.ones(1, text, facts.text_dim, dtype=kind)
        predicted: Tensor = model(torch.ones(1, *latents, dtype=kind), torch.ones(1), states, return_dict=False)[0]
        return predicted

    return Job(spec=spec, model=wan.empty_transformer(facts), float32=KEEP_FLOAT32, latents=latents, ask=ask)


def flux_kontext(facts: FluxFacts | None = None, *, size: Size = (1024, 1024), text: int = 512) -> Job:
    """Return FLUX.1 Kontext with one control picture of the same size."""
    facts, spec = facts or FluxFacts(), FluxKontext.dev()
    cells = (size[0] // 16) * (size[1] // 16)

    def ask(model: nn.Module) -> Tensor:
        kind = model.get_parameter("x_embedder.weight").dtype
        predicted: Tensor = model(
            torch.ones(1, 2 * cells, facts.in_channels, dtype=kind),
            encoder_hidden_states=torch.ones(1, text, facts.text_dim, dtype=kind),
            pooled_projections=torch.ones(1, facts.pooled_dim, dtype=kind),
            timestep=torch.ones(1),
            img_ids=torch.ones(2 * cells, 3),
            txt_ids=torch.zeros(text, 3),
            guidance=torch.ones(1),
        )
        return predicted

    return Job(
        spec=spec,
        model=flux.empty_transformer(facts),
        float32=flux.KEEP_FLOAT32,
        latents=spec.geometry.latent_shape(size),
        ask=ask,
    )


def hunyuan_video(
    facts: HunyuanFacts | None = None, *, size: Size = (960, 544), frames: int = 33, text: int = 256
) -> Job:
    """Return HunyuanVideo."""
    facts, spec = facts or HunyuanFacts(), HunyuanVideo.t2v()
    latents = (facts.in_channels, *spec.geometry.latent_shape(size, frames)[1:])

    def ask(model: nn.Module) -> Tensor:
        kind = model.get_parameter("x_embedder.proj.weight").dtype
        predicted: Tensor = model(
            torch.ones(1, *latents, dtype=kind),
            encoder_hidden_states=torch.ones(1, text, facts.text_dim, dtype=kind),
            pooled_projections=torch.ones(1, facts.pooled_dim, dtype=kind),
            timestep=torch.ones(1),
            guidance=torch.ones(1),
        )
        return predicted

    return Job(
        spec=spec,
        model=hunyuan.empty_transformer(facts),
        float32=hunyuan.KEEP_FLOAT32,
        latents=latents,
        ask=ask,
    )


def frame_pack(
    facts: FramePackFacts | None = None, *, size: Size = (640, 640), text: int = 256, image: int = 729
) -> Job:
    """Return FramePack with a section of nine latent frames and its whole history."""
    facts, spec = facts or FramePackFacts(), FramePack.inverted()
    height, width = size[1] // 8, size[0] // 8
    latents = (facts.in_channels, 9, height, width)

    def history(frames: int, kind: torch.dtype) -> framepack.History:
        clean = torch.ones(1, facts.in_channels, frames, height, width, dtype=kind)
        return framepack.History(latents=clean, positions=torch.ones(1, frames, dtype=torch.int64))

    def ask(model: nn.Module) -> Tensor:
        kind = model.get_parameter("x_embedder.proj.weight").dtype
        predicted: Tensor = model(
            torch.ones(1, *latents, dtype=kind),
            positions=torch.ones(1, 9, dtype=torch.int64),
            encoder_hidden_states=torch.ones(1, text, facts.text_dim, dtype=kind),
            pooled_projections=torch.ones(1, facts.pooled_dim, dtype=kind),
            image_embeds=torch.ones(1, image, facts.image_dim, dtype=kind),
            timestep=torch.ones(1),
            guidance=torch.ones(1),
            clean=history(2, kind),
            clean_2x=history(2, kind),
            clean_4x=history(16, kind),
        )
        return predicted

    return Job(
        spec=spec,
        model=framepack.empty_transformer(facts),
        float32=framepack.KEEP_FLOAT32,
        latents=latents,
        ask=ask,
    )
