"""What Wan's published models are for, and what tells each of them: widths, channels, files, its authors' defaults."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import attrs

from musubi.architecture import Geometry, Size

Task = Literal[
    "t2v_1_3b",
    "t2v_14b",
    "t2i_14b",
    "i2v_14b",
    "flf2v_14b",
    "t2v_1_3b_control",
    "t2v_14b_control",
    "i2v_14b_control",
    "t2v_a14b",
    "i2v_a14b",
    "ti2v_5b",
]

GEOMETRY = Geometry(multiple=16, stride=8, frame_step=4, channels=16, patch=(1, 2, 2), fps=16.0)
GEOMETRY_5B = Geometry(multiple=32, stride=16, frame_step=4, channels=48, patch=(1, 2, 2), fps=24.0)

NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，"  # noqa: RUF001
    "JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，"  # noqa: RUF001
    "手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"  # noqa: RUF001
)
"""The negative prompt that Wan's authors ship."""

_NO_CUTS = "镜头切换，"  # noqa: RUF001
"""What they put before it where a clip has to reach a given last frame: scene cuts."""

_COMFY = "Comfy-Org/Wan_2.1_ComfyUI_repackaged@main:split_files"
_COMFY_22 = "Comfy-Org/Wan_2.2_ComfyUI_Repackaged@main:split_files"
_OFFICIAL = "Wan-AI/Wan2.1-I2V-14B-720P@main"
_FUN = "alibaba-pai/Wan2.1-Fun-{}-Control@main:diffusion_pytorch_model.safetensors"

T5 = f"{_OFFICIAL}:models_t5_umt5-xxl-enc-bf16.pth"
CLIP = f"{_OFFICIAL}:models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
TOKENIZER = "Wan-AI/Wan2.1-T2V-14B@main:google/umt5-xxl"
_VAE = f"{_COMFY}/vae/wan_2.1_vae.safetensors"
_VAE_22 = f"{_COMFY_22}/vae/wan2.2_vae.safetensors"


@attrs.frozen(kw_only=True)
class Form:
    """What a transformer takes and gives: what its shapes tell of the task.

    ``inputs`` and ``outputs`` are latent channels. ``image`` says whether it attends to CLIP's features beside the
    text, ``positions`` how many of these have learned places, where they are those of two pictures.
    """

    inputs: int = 16
    outputs: int = 16
    image: bool = False
    positions: int | None = None


@attrs.frozen(kw_only=True)
class Published:
    """A published model: its title, widths and depth, its files by component, and its authors' defaults.

    ``boundary`` is the noise level from which the expert for high levels is asked, of a model that has two. ``shift``
    is that of the sampler's grid, ``training_shift`` that of the noise levels in training.
    """

    title: str
    dim: int
    ffn_dim: int
    num_layers: int
    files: Mapping[str, str]
    vae: str = _VAE
    form: Form = Form()
    geometry: Geometry = GEOMETRY
    boundary: float | None = None
    size: Size = (832, 480)
    frames: int = 81
    steps: int = 50
    guidance: float | tuple[float, float] = 5.0
    """One scale, or those of the experts for high and for low noise levels."""

    shift: float = 5.0
    small_shift: float | None = None
    """The grid's shift at 832 x 480 and 480 x 832, where that is another one."""

    training_shift: float = 3.0
    negative: str = NEGATIVE


def _comfy(name: str) -> Mapping[str, str]:
    return MappingProxyType({"dit": f"{_COMFY}/diffusion_models/{name}.safetensors"})


def _pair(kind: str) -> Mapping[str, str]:
    folder = f"{_COMFY_22}/diffusion_models/wan2.2_{kind}"
    return MappingProxyType({f"dit_{name}": f"{folder}_{name}_noise_14B_fp16.safetensors" for name in ("high", "low")})


_SMALL = Published(
    title="Wan 2.1 T2V 1.3B", dim=1536, ffn_dim=8960, num_layers=30, files=_comfy("wan2.1_t2v_1.3B_bf16")
)
_LARGE = Published(title="Wan 2.1 T2V 14B", dim=5120, ffn_dim=13824, num_layers=40, files=_comfy("wan2.1_t2v_14B_bf16"))
_IMAGE = attrs.evolve(
    _LARGE,
    title="Wan 2.1 I2V 14B",
    files=_comfy("wan2.1_i2v_480p_14B_bf16"),
    form=Form(inputs=36, image=True),
    steps=40,
    small_shift=3.0,
)
_CONTROL = Form(inputs=48, image=True)

PUBLISHED: Mapping[Task, Published] = MappingProxyType(
    {
        "t2v_1_3b": _SMALL,
        "t2v_14b": _LARGE,
        "t2i_14b": attrs.evolve(_LARGE, title="Wan 2.1 T2I 14B", size=(1024, 1024), frames=1),
        "i2v_14b": _IMAGE,
        "flf2v_14b": attrs.evolve(
            _IMAGE,
            title="Wan 2.1 FLF2V 14B",
            files=_comfy("wan2.1_flf2v_720p_14B_fp16"),
            form=Form(inputs=36, image=True, positions=514),
            size=(1280, 720),
            small_shift=None,
            negative=_NO_CUTS + NEGATIVE,
        ),
        "t2v_1_3b_control": attrs.evolve(
            _SMALL, title="Wan 2.1 Fun Control 1.3B", files={"dit": _FUN.format("1.3B")}, form=_CONTROL
        ),
        "t2v_14b_control": attrs.evolve(
            _LARGE, title="Wan 2.1 Fun Control 14B", files={"dit": _FUN.format("14B")}, form=_CONTROL
        ),
        "i2v_14b_control": attrs.evolve(
            _IMAGE, title="Wan 2.1 Fun Control 14B, I2V", files={"dit": _FUN.format("14B")}, form=_CONTROL
        ),
        "t2v_a14b": attrs.evolve(
            _LARGE,
            title="Wan 2.2 T2V A14B",
            files=_pair("t2v"),
            boundary=0.875,
            steps=40,
            guidance=(4.0, 3.0),
            shift=12.0,
            training_shift=12.0,
        ),
        "i2v_a14b": attrs.evolve(
            _LARGE,
            title="Wan 2.2 I2V A14B",
            files=_pair("i2v"),
            form=Form(inputs=36),
            boundary=0.9,
            steps=40,
            guidance=(3.5, 3.5),
            training_shift=5.0,
        ),
        "ti2v_5b": Published(
            title="Wan 2.2 TI2V 5B",
            dim=3072,
            ffn_dim=14336,
            num_layers=30,
            files={"dit": f"{_COMFY_22}/diffusion_models/wan2.2_ti2v_5B_fp16.safetensors"},
            vae=_VAE_22,
            form=Form(inputs=48, outputs=48),
            geometry=GEOMETRY_5B,
            size=(1280, 704),
            frames=121,
            training_shift=5.0,
        ),
    }
)
