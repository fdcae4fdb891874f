"""diffusers' pipelines of Qwen-Image around tiny files, with what they lack on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    QwenImagePipeline,
)
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from PIL import Image as Pillow
from torch import Tensor, nn
from transformers import BatchFeature, PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from musubi.architectures.qwen_image.pixels import Patching, patches_of
from musubi.architectures.qwen_image.tasks import Task
from musubi.architectures.qwen_image.vl import lead_length, load_tokenizer

_IMAGE_PAD = "<|image_pad|>"


class Processor:
    """Stand where transformers' processor of Qwen2.5-VL stands, which cannot be made without torchvision.

    The pixels are ours, whose patches golden cases of the published processor hold to the last bit; the tokens of a
    picture take the place of its one token as there.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def __call__(self, text: Sequence[str], images: Any = None, **options: Any) -> BatchFeature:
        pictures = [] if images is None else images if isinstance(images, list) else [images]
        patches = [patches_of(torch.tensor(np.asarray(picture)), Patching()) for picture in pictures]
        texts = list(text)
        for one in patches:
            texts = [whole.replace(_IMAGE_PAD, "<|placeholder|>" * one.tokens(2), 1) for whole in texts]
        tokens = self.tokenizer([whole.replace("<|placeholder|>", _IMAGE_PAD) for whole in texts], **options)
        shown = {}
        if patches:
            grid = torch.tensor([[1, one.rows, one.columns] for one in patches])
            shown = {"pixel_values": torch.cat([one.values for one in patches]), "image_grid_thw": grid}
        return BatchFeature({**tokens, **shown})


class Told(nn.Module):
    """A language model that is told which tokens are pictures, which diffusers' pipelines do not pass on.

    Without it transformers from 5.0 on takes a picture's tokens for words in a row: a known defect of the pipelines.
    """

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, *, told: bool = True) -> None:
        super().__init__()
        self.model, self.told = model, told
        self.seen: list[Tensor] = []

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def device(self) -> torch.device:
        return self.model.device

    def forward(self, input_ids: Tensor, **options: Any) -> Any:
        self.seen.append(input_ids)
        types = (input_ids == self.model.config.image_token_id).int()
        more = {"mm_token_type_ids": types} if self.told and options.get("pixel_values") is not None else {}
        return self.model(input_ids=input_ids, **options, **more)


def pipeline_of(task: Task, folder: Path, *, told: bool = True) -> Any:
    """Return diffusers' pipeline for a task, on a folder of it."""
    tokenizer = load_tokenizer(folder / "tokenizer")
    kind: Any = {"text_to_image": QwenImagePipeline, "edit": QwenImageEditPipeline}.get(task, QwenImageEditPlusPipeline)
    schedule: Any = FlowMatchEulerDiscreteScheduler
    pipeline = kind(
        transformer=QwenImageTransformer2DModel.from_pretrained(folder / "transformer"),
        vae=AutoencoderKLQwenImage.from_pretrained(folder / "vae"),
        text_encoder=Told(Qwen2_5_VLForConditionalGeneration.from_pretrained(folder / "text_encoder"), told=told),
        tokenizer=tokenizer,
        scheduler=schedule(
            base_image_seq_len=256,
            max_image_seq_len=8192,
            base_shift=0.5,
            max_shift=0.9,
            shift_terminal=0.02,
            use_dynamic_shifting=True,
            time_shift_type="exponential",
        ),
        **({} if task == "text_to_image" else {"processor": Processor(tokenizer)}),
    )
    pipeline.set_progress_bar_config(disable=True)
    # 34 and 64 with the published tokenizer; this one spells
    pipeline.prompt_template_encode_start_idx = lead_length(tokenizer, task)
    return pipeline


def pictures(count: int, *, seed: int = 0) -> list[Pillow.Image]:
    """Return pictures of different sizes, none of which is in the grid of any model."""
    random = np.random.default_rng(seed)
    sizes = [(90, 130), (200, 61), (75, 75)]
    return [
        Pillow.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)) for width, height in sizes[:count]
    ]
