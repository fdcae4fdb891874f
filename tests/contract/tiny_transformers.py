"""Real transformers of all families at toy size, with random weights, inputs for them, and what loads them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from musubi.architecture import Architecture
from musubi.architectures.flux_kontext import transformer as flux_kontext_transformer
from musubi.architectures.framepack import transformer as framepack_transformer
from musubi.architectures.hunyuan_video import transformer as hunyuan_video_transformer
from musubi.architectures.qwen_image import transformer as qwen_image_transformer
from musubi.architectures.wan import denoiser as wan_denoiser
from musubi.memory.policy import MemoryPolicy, preparation, weight_hook
from musubi.testing.toy import DrawnWeights
from musubi.weights.checkpoint import Checkpoint
from musubi.weights.load import load_into
from tests.architectures.flux_kontext import golden as flux_kontext
from tests.architectures.framepack import golden as framepack
from tests.architectures.hunyuan_video import golden as hunyuan_video
from tests.architectures.qwen_image import golden as qwen_image
from tests.parity.tiny_models import tiny_model

Inputs = dict[str, Tensor]
TEXT, POOLED, TOKENS = 16, 20, 5
"""Widths of the text embeddings, and how many tokens they have."""

_JOINT = {"guidance_embed": True, "axes_dim": [4, 6, 6], "rope_dim_list": [4, 6, 6], "rope_axes_dim": [4, 6, 6]}


@attrs.frozen(kw_only=True, eq=False)
class Family:
    """A family at toy size: five blocks of width 64, so that blocks of 64 inputs fit most of its matrices.

    ``draw`` makes the inputs of a call, ``predict`` calls the model with them.
    """

    arch: str
    config: Mapping[str, Any]
    keep_float32: Sequence[str]
    draw: Callable[[torch.Generator], Inputs]
    predict: Callable[[nn.Module, Inputs], Tensor]

    @property
    def spec(self) -> Architecture:
        """The architecture, whose variant has other sizes."""
        return tiny_model(self.arch, dict(self.config)).architecture

    def load(self, policies: Sequence[MemoryPolicy] = (), *, dtype: torch.dtype = torch.float32) -> nn.Module:
        """Return the model with the same random weights each time, changed on their way in as the policies want."""
        made = tiny_model(self.arch, dict(self.config))
        keys, layout = made.architecture.keys, made.architecture.layout
        tensors = _original_weights(made.model, made.architecture)
        preparation(policies, keys=keys, layout=layout)(made.model)
        hook = weight_hook(policies, keys=keys, layout=layout)
        checkpoint = Checkpoint([DrawnWeights(path=Path(self.arch), tensors=tensors)])
        load_into(
            made.model,
            checkpoint,
            keys=keys,
            device="cpu",
            dtype=dtype,
            on_weight=hook,
            keep_float32=self.keep_float32,
        )
        return made.model.requires_grad_(requires_grad=False).eval()

    def inputs(self, seed: int, *, dtype: torch.dtype = torch.float32) -> Inputs:
        """Return the inputs of a call; noise levels and guidance are float32 always."""
        drawn = self.draw(torch.Generator().manual_seed(seed))
        kept = ("t", "timestep", "timesteps", "guidance")
        return {n: t.to(dtype) if t.is_floating_point() and n not in kept else t for n, t in drawn.items()}


def _original_weights(model: nn.Module, architecture: Architecture) -> dict[str, Tensor]:
    """Draw a checkpoint in original names: outputs of unit scale, and nothing that could be left out unnoticed."""
    generator, tensors, keys = torch.Generator().manual_seed(0), dict[str, Tensor](), architecture.keys
    for library, parameter in model.named_parameters():
        original, _ = keys.to_original(library)
        if original not in tensors:
            rows = sum(model.get_parameter(part.name).shape[0] for part in keys.to_library(original))
            shape = (rows, *parameter.shape[1:])
            tensors[original] = _drawn(shape, generator, scales="norm" in library.rpartition(".")[0])
    return tensors


def _drawn(shape: tuple[int, ...], generator: torch.Generator, *, scales: bool) -> Tensor:
    noise = torch.randn(shape, generator=generator)
    if len(shape) == 1:
        return 1 + 0.1 * noise if scales else 0.1 * noise
    inputs = noise[0].numel()
    return noise / math.sqrt(inputs)


def _draw_wan(generator: torch.Generator) -> Inputs:
    return {
        "x": torch.randn(1, 4, 2, 4, 4, generator=generator),
        "t": torch.tensor([431.0]),
        "text": torch.randn(1, TOKENS, TEXT, generator=generator),
    }


def _predict_wan(model: nn.Module, inputs: Inputs) -> Tensor:
    output: Tensor = model(inputs["x"], inputs["t"], inputs["text"], return_dict=False)[0]
    return output


def _draw_hunyuan_video(generator: torch.Generator) -> Inputs:
    return {
        "x": torch.randn(2, 4, 2, 4, 4, generator=generator),
        "t": torch.tensor([431.0, 760.0]),
        "text_states": torch.randn(2, TOKENS, TEXT, generator=generator),
        "text_states_2": torch.randn(2, POOLED, generator=generator),
        "text_mask": torch.arange(TOKENS)[None] < torch.tensor([[3], [TOKENS]]),
        "guidance": torch.tensor([6000.0, 6000.0]),
    }


def _draw_framepack(generator: torch.Generator) -> Inputs:
    def latents(frames: int) -> Tensor:
        return torch.randn(1, 16, frames, 4, 4, generator=generator)

    return {
        "hidden_states": latents(2),
        "latent_indices": torch.tensor([[3, 4]]),
        "encoder_hidden_states": torch.randn(1, TOKENS, TEXT, generator=generator),
        "encoder_attention_mask": torch.arange(TOKENS)[None] < 4,
        "pooled_projections": torch.randn(1, POOLED, generator=generator),
        "image_embeddings": torch.randn(1, 2, 12, generator=generator),
        "timestep": torch.tensor([431.0]),
        "guidance": torch.tensor([10000.0]),
        "clean_latents": latents(2),
        "clean_latent_indices": torch.tensor([[0, 5]]),
    }


def _draw_flux_kontext(generator: torch.Generator) -> Inputs:
    return {
        "noisy_latents": torch.randn(1, 4, 4, 4, generator=generator),
        "control_latents": torch.randn(1, 4, 2, 4, generator=generator),
        "t5_vec": torch.randn(1, TOKENS, TEXT, generator=generator),
        "clip_l_pooler": torch.randn(1, POOLED, generator=generator),
        "timesteps": torch.tensor([0.431]),
        "guidance": torch.tensor([1.0]),
    }


def _draw_qwen_image(generator: torch.Generator) -> Inputs:
    return {
        "noisy_latents": torch.randn(2, 4, 1, 4, 4, generator=generator),
        "latents_control_0": torch.randn(2, 4, 1, 2, 4, generator=generator),
        "vl_embed_0": torch.randn(TOKENS, TEXT, generator=generator),
        "vl_embed_1": torch.randn(3, TEXT, generator=generator),
        "timesteps": torch.tensor([0.431, 0.76]),
    }


FAMILIES: Mapping[str, Family] = {
    "wan": Family(
        arch="wan",
        config={
            "model_version": "2.1",
            "model_type": "t2v",
            "dim": 64,
            "ffn_dim": 96,
            "num_heads": 2,
            "num_layers": 5,
            "in_dim": 4,
            "out_dim": 4,
            "text_dim": TEXT,
            "freq_dim": 32,
        },
        keep_float32=wan_denoiser.KEEP_FLOAT32,
        draw=_draw_wan,
        predict=_predict_wan,
    ),
    "hunyuan_video": Family(
        arch="hunyuan_video",
        config={
            **_JOINT,
            "hidden_size": 64,
            "heads_num": 4,
            "mlp_width_ratio": 2.0,
            "mm_double_blocks_depth": 2,
            "mm_single_blocks_depth": 3,
            "in_channels": 4,
            "out_channels": 4,
            "text_states_dim": TEXT,
            "text_states_dim_2": POOLED,
        },
        keep_float32=hunyuan_video_transformer.KEEP_FLOAT32,
        draw=_draw_hunyuan_video,
        predict=hunyuan_video.predict,
    ),
    "framepack": Family(
        arch="framepack",
        config={
            **_JOINT,
            "num_attention_heads": 4,
            "attention_head_dim": 16,
            "mlp_ratio": 2.0,
            "num_layers": 2,
            "num_single_layers": 3,
            "num_refiner_layers": 1,
            "in_channels": 16,
            "out_channels": 16,
            "text_embed_dim": TEXT,
            "pooled_projection_dim": POOLED,
            "image_proj_dim": 12,
        },
        keep_float32=framepack_transformer.KEEP_FLOAT32,
        draw=_draw_framepack,
        predict=framepack.predict,
    ),
    "flux_kontext": Family(
        arch="flux_kontext",
        config={
            **_JOINT,
            "hidden_size": 64,
            "num_heads": 4,
            "depth": 2,
            "depth_single_blocks": 3,
            "in_channels": 16,
            "context_in_dim": TEXT,
            "vec_in_dim": POOLED,
        },
        keep_float32=flux_kontext_transformer.KEEP_FLOAT32,
        draw=_draw_flux_kontext,
        predict=flux_kontext.predict,
    ),
    "qwen_image": Family(
        arch="qwen_image",
        config={
            "num_attention_heads": 4,
            "attention_head_dim": 16,
            "num_layers": 5,
            "in_channels": 16,
            "out_channels": 4,
            "joint_attention_dim": TEXT,
            "axes_dims_rope": [4, 6, 6],
        },
        keep_float32=qwen_image_transformer.KEEP_FLOAT32,
        draw=_draw_qwen_image,
        predict=qwen_image.predict,
    ),
}
