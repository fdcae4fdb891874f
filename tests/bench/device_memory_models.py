"""The models of ``bench_device_memory`` without a checkpoint: at full width, or smaller to try the script."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import torch
from torch import Tensor, nn

from musubi import QwenImage, Wan
from musubi.architecture import Architecture
from musubi.architectures.qwen_image import facts as qwen_facts
from musubi.architectures.qwen_image import transformer as qwen
from musubi.architectures.wan import transformer as wan
from musubi.architectures.wan.denoiser import KEEP_FLOAT32
from musubi.architectures.wan.facts import DitFacts as WanFacts

Inputs = dict[str, Tensor]


@attrs.frozen(kw_only=True)
class Scale:
    """How much smaller a job is than the published one; None where it is not."""

    layers: int | None = None
    width: int | None = None
    size: int | None = None
    """Pixels of each side."""

    text: int | None = None
    """Tokens."""


@attrs.frozen(kw_only=True, eq=False)
class Job:
    """A model on the meta device, and one training item for it."""

    spec: Architecture
    model: nn.Module
    blocks: int
    keep_float32: Sequence[str]
    latents: tuple[int, ...]
    inputs: Callable[[torch.device], Inputs]
    predict: Callable[[nn.Module, Inputs], Tensor]


def job_of(name: str, scale: Scale) -> Job:
    """Return a job: ``qwen`` at 1024x1024, ``wan-image`` at 832x480, ``wan-video`` with 81 frames."""
    if name == "qwen":
        return _qwen(scale)
    return _wan(scale, frames=81 if name == "wan-video" else 1)


def _qwen(scale: Scale) -> Job:
    width, text = scale.width or 3072, scale.text or 300
    head, axes = _head(width)
    facts = qwen_facts.DitFacts(
        dim=width,
        head_dim=head,
        blocks=tuple(range(scale.layers or 60)),
        text_dim=3584 if scale.width is None else width,
        axes=axes,
    )
    spec, side = QwenImage.text_to_image(), (scale.size or 1024) // 16

    def inputs(device: torch.device) -> Inputs:
        return {
            "image": _random((1, side * side, facts.in_channels), device),
            "text": _random((1, text, facts.text_dim), device),
            "timestep": torch.rand(1, device=device),
        }

    def predict(model: nn.Module, inputs: Inputs) -> Tensor:
        predicted: Tensor = model(
            inputs["image"],
            encoder_hidden_states=inputs["text"],
            timestep=inputs["timestep"],
            img_shapes=[(1, side, side)],
        )
        return predicted

    return Job(
        spec=spec,
        model=qwen.empty_transformer(facts),
        blocks=len(facts.blocks),
        keep_float32=qwen.KEEP_FLOAT32,
        latents=spec.geometry.latent_shape((side * 16, side * 16)),
        inputs=inputs,
        predict=predict,
    )


def _wan(scale: Scale, *, frames: int) -> Job:
    width = scale.width or 5120
    head, _ = _head(width)
    facts = WanFacts(
        dim=width,
        ffn_dim=13824 if scale.width is None else 2 * width,
        num_heads=width // head,
        num_layers=scale.layers or 40,
        in_channels=16,
        out_channels=16,
        text_dim=4096 if scale.width is None else width,
        freq_dim=256,
        patch=(1, 2, 2),
        image_dim=None,
        image_tokens=None,
        image_keys=False,
    )
    spec = Wan.t2v_14b()
    latents = spec.geometry.latent_shape((scale.size, scale.size) if scale.size else (832, 480), frames)

    def inputs(device: torch.device) -> Inputs:
        return {
            "x": _random((1, *latents), device),
            "timestep": 1000 * torch.rand(1, device=device),
            "text": _random((1, 512, facts.text_dim), device),
        }

    def predict(model: nn.Module, inputs: Inputs) -> Tensor:
        predicted: Tensor = model(inputs["x"], inputs["timestep"], inputs["text"], return_dict=False)[0]
        return predicted

    return Job(
        spec=spec,
        model=wan.empty_transformer(facts),
        blocks=facts.num_layers,
        keep_float32=KEEP_FLOAT32,
        latents=latents,
        inputs=inputs,
        predict=predict,
    )


def _head(width: int) -> tuple[int, tuple[int, int, int]]:
    """Return the width of an attention head and its channels for image, row and column."""
    return (128, qwen_facts.AXES) if width % 128 == 0 else (16, (4, 6, 6))


def _random(shape: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.randn(shape, device=device, dtype=torch.bfloat16)
