"""What the published models are for, and what tells each of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import attrs

from musubi.architecture import Size

Task = Literal["text_to_image", "edit", "edit_2509", "edit_2511"]

_COMFY = "Comfy-Org/Qwen-Image_ComfyUI@main:split_files"
_COMFY_EDIT = "Comfy-Org/Qwen-Image-Edit_ComfyUI@main:split_files"

VAE = "Qwen/Qwen-Image@main:vae/diffusion_pytorch_model.safetensors"
TEXT_ENCODER = f"{_COMFY}/text_encoders/qwen_2.5_vl_7b.safetensors"
TOKENIZER = "Qwen/Qwen-Image@main:tokenizer"

MARK = "__index_timestep_zero__"
"""The tensor by which ComfyUI marks files of Edit-2511, whose names and shapes are those of the others."""


@attrs.frozen(kw_only=True)
class Published:
    """What tells a published model: its title, its metadata, its file, and its authors' defaults.

    ``zero_time`` says that the network is told no noise for the pictures it starts from.
    """

    title: str
    base: str
    architecture: str
    file: str
    size: Size = (1024, 1024)
    steps: int = 50
    zero_time: bool = False


def _edit(name: str) -> str:
    return f"{_COMFY_EDIT}/diffusion_models/qwen_image_{name}_bf16.safetensors"


PUBLISHED: Mapping[Task, Published] = MappingProxyType(
    {
        "text_to_image": Published(
            title="Qwen-Image",
            base="qwen_image",
            architecture="Qwen-Image/lora",
            file=f"{_COMFY}/diffusion_models/qwen_image_bf16.safetensors",
            size=(1328, 1328),
        ),
        "edit": Published(
            title="Qwen-Image-Edit", base="qwen_image_edit", architecture="Qwen-Image-Edit/lora", file=_edit("edit")
        ),
        "edit_2509": Published(
            title="Qwen-Image-Edit-2509",
            base="qwen_image_edit",
            architecture="Qwen-Image-Edit-Plus/lora",
            file=_edit("edit_2509"),
            steps=40,
        ),
        "edit_2511": Published(
            title="Qwen-Image-Edit-2511",
            base="qwen_image_edit",
            architecture="Qwen-Image-Edit-2511/lora",
            file=_edit("edit_2511"),
            steps=40,
            zero_time=True,
        ),
    }
)
