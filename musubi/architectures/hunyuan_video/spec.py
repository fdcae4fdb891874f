"""Which HunyuanVideo: the task as the user's choice, everything else as facts that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import attrs

from musubi.architecture import (
    Architecture,
    ComfyNames,
    Generation,
    Geometry,
    Interchange,
    Layout,
    Stage,
)
from musubi.architectures.hunyuan_video.keys import DIT
from musubi.core.fields import field, one_of
from musubi.core.refs import WeightsRef
from musubi.keymap import KeyMap

if TYPE_CHECKING:
    from musubi.noise.samplers import Sampler
    from musubi.noise.timesteps import TimestepSampler

Task = Literal["t2v", "skyreels_i2v"]

GEOMETRY = Geometry(multiple=16, stride=8, frame_step=4, channels=16, patch=(1, 2, 2), fps=24.0)
"""Sides in 16 pixels, clips of 4 k + 1 frames at 24 frames a second, 16 latent channels at an eighth of the size."""

_DOUBLE_ATTENTION = r"double_blocks\.\d+\.(img|txt)_attn_(qkv|proj)"
_DOUBLE_MLP = r"double_blocks\.\d+\.(img|txt)_mlp\.fc(1|2)"
_SINGLE = r"single_blocks\.\d+\.linear(1|2)"
_MODULATION = (r"double_blocks\.\d+\.(img|txt)_mod\.linear", r"single_blocks\.\d+\.modulation\.linear")

_COMFY_OWN = (
    ("_attn_qkv", "_attn.qkv"),
    ("_attn_proj", "_attn.proj"),
    ("mlp.fc1", "mlp.0"),
    ("mlp.fc2", "mlp.2"),
    ("_mod.linear", "_mod.lin"),
    (".modulation.linear", ".modulation.lin"),
)

_ENCODERS = "Comfy-Org/HunyuanVideo_repackaged@main:split_files/text_encoders"
_COMMUNITY = "hunyuanvideo-community/HunyuanVideo@main"


@attrs.frozen(kw_only=True)
class Published:
    """What tells a published model: its title, its file, the channels it sees, and its authors' defaults."""

    title: str
    file: str
    in_channels: int
    generation: Generation


PUBLISHED: Mapping[Task, Published] = MappingProxyType(
    {
        "t2v": Published(
            title="HunyuanVideo",
            file="tencent/HunyuanVideo@main:hunyuan-video-t2v-720p/transformers/mp_rank_00_model_states.pt",
            in_channels=16,
            generation=Generation(size=(1280, 720), frames=129, steps=50, guidance=6.0, fps=24.0),
        ),
        "skyreels_i2v": Published(
            title="SkyReels V1 I2V",
            file="Kijai/SkyReels-V1-Hunyuan_comfy@main:skyreels_hunyuan_i2v_bf16.safetensors",
            in_channels=32,
            generation=Generation(size=(960, 544), frames=97, steps=30, guidance=6.0, fps=24.0),
        ),
    }
)


@attrs.frozen(kw_only=True)
class HunyuanVideo(Architecture):
    """HunyuanVideo, clips from words, or SkyReels V1, clips from a first frame and words.

    A SkyReels clip is its own condition: the first frame is shown to the network beside the noise. Tencent's own
    HunyuanVideo-I2V is another model and refused. This version describes the models, scans data for them, reads their
    checkpoints, and reads, converts and merges LoRAs of them; it does not encode, train or generate with them yet. The
    published weights are under Tencent's community licence, which does not cover every country.

    Args:
        task: The published model whose inputs and defaults apply.
        weights: Files to use instead of the published ones: ``dit``, ``vae``, ``llm``, ``clip_l``, ``llm_tokenizer``,
            ``clip_l_tokenizer``.

    Example:
        >>> from musubi import HunyuanVideo
        >>> HunyuanVideo.t2v().geometry.frame_issues(129)
        []
    """

    kind: ClassVar[str] = "hunyuan_video"
    name: ClassVar[str] = "hunyuan_video"
    cache_suffix: ClassVar[str] = "hv"

    task: Task = field(default="t2v", check=one_of(*PUBLISHED))

    @classmethod
    def t2v(cls) -> Self:
        """Return HunyuanVideo, text to video."""
        return cls(task="t2v")

    @classmethod
    def skyreels_i2v(cls) -> Self:
        """Return SkyReels V1, image to video."""
        return cls(task="skyreels_i2v")

    @property
    def published(self) -> Published:
        """The published model of this task."""
        return PUBLISHED[self.task]

    @property
    def title(self) -> str:
        """What messages call this variant, e.g. ``SkyReels V1 I2V``."""
        return self.published.title

    @property
    def geometry(self) -> Geometry:
        """Clips and stills."""
        return GEOMETRY

    @property
    def layout(self) -> Layout:
        """20 double, then 40 single blocks; the reference's 240 targets, which leave modulation out.

        Presets: ``attention`` (of the double blocks; the single ones fuse it with their feed-forward),
        ``double_blocks``, ``single_blocks``, and ``with_modulation``, which adds to the default set. The reference does
        not quantise this model; here all of the blocks but their modulation can be.
        """
        default = (_DOUBLE_ATTENTION, _DOUBLE_MLP, _SINGLE)
        return Layout(
            blocks=("transformer_blocks", "single_transformer_blocks"),
            count=60,
            adapters=default,
            quantise=(r"(double_blocks|single_blocks)\..*",),
            keep=(r".*(norm|mod).*",),
            presets={
                "attention": (_DOUBLE_ATTENTION,),
                "double_blocks": (_DOUBLE_ATTENTION, _DOUBLE_MLP),
                "single_blocks": (_SINGLE,),
                "with_modulation": (*default, *_MODULATION),
            },
        )

    @property
    def keys(self) -> KeyMap:
        """Original names <-> diffusers' names."""
        return DIT

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Latents from pixels; text from captions, by two encoders."""
        return (
            Stage(name="latents", components=("vae",), reads=("pixels",)),
            Stage(name="text", components=("llm", "clip_l"), reads=("caption",)),
        )

    @property
    def timesteps(self) -> TimestepSampler:
        """Logit-normal noise levels shifted by 7, the reference's advice for this model."""
        from musubi.noise.timesteps import Shift

        return Shift(shift=7.0)

    @property
    def sampler(self) -> Sampler:
        """Euler on a grid shifted by 7, as published."""
        from musubi.noise.samplers import Euler

        return Euler(shift=7.0)

    @property
    def generation(self) -> Generation:
        """The authors' defaults.

        HunyuanVideo is told its guidance and runs once a step; SkyReels runs twice, with and without the prompt.
        """
        return self.published.generation

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the reference writes for this family, and the licence of the published weights."""
        return {
            "modelspec.architecture": "hunyuan-video/lora",
            "modelspec.implementation": "https://github.com/Tencent/HunyuanVideo",
            "modelspec.license": "tencent-hunyuan-community",
        }

    @property
    def interchange(self) -> Interchange:
        """Original names with alpha folded in load whole in ComfyUI and in diffusers, whose loader knows no alpha."""
        return Interchange(
            layout="peft",
            diffusers="HunyuanVideoPipeline",
            comfy_names=ComfyNames(own=_COMFY_OWN, prefixes=("diffusion_model.", "transformer.")),
            swapped=(r"final_layer\.adaLN_modulation\.1",),
        )

    def linears(self) -> Mapping[str, tuple[int, int]]:
        """Return (inputs, outputs) of every Linear of the published transformer by original name; imports torch."""
        from musubi.architectures.hunyuan_video.facts import DitFacts
        from musubi.architectures.hunyuan_video.transformer import empty_transformer
        from musubi.networks.groups import shapes_of

        return shapes_of(empty_transformer(DitFacts(in_channels=self.published.in_channels)), self.keys)

    def default_weights(self) -> Mapping[str, WeightsRef]:
        """Return where each component is published."""
        return {
            "dit": WeightsRef(self.published.file),
            "vae": WeightsRef(f"{_COMMUNITY}:vae/diffusion_pytorch_model.safetensors"),
            "llm": WeightsRef(f"{_ENCODERS}/llava_llama3_fp16.safetensors"),
            "clip_l": WeightsRef(f"{_ENCODERS}/clip_l.safetensors"),
            "llm_tokenizer": WeightsRef(f"{_COMMUNITY}:tokenizer"),
            "clip_l_tokenizer": WeightsRef(f"{_COMMUNITY}:tokenizer_2"),
        }
