"""Which Wan model: the task as the user's choice, everything else as facts that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import attrs

from musubi.architecture import Architecture, Component, Generation, Geometry, Interchange, Layout, Stage
from musubi.architectures.wan.keys import DIT, TEXT_ENCODER
from musubi.core.fields import field, one_of
from musubi.core.refs import WeightsRef
from musubi.keymap import KeyMap

if TYPE_CHECKING:
    from musubi.architectures.wan.codec import WanCodec
    from musubi.architectures.wan.denoiser import WanDenoiser
    from musubi.noise.samplers import Sampler
    from musubi.noise.timesteps import TimestepSampler

Task = Literal["t2v_1_3b", "t2v_14b"]

TEXT_LENGTH = 512
"""Tokens the transformer sees of every caption, padding included."""

GEOMETRY = Geometry(multiple=16, stride=8, frame_step=4, channels=16, patch=(1, 2, 2), fps=16.0)

_SELF_ATTENTION = r"blocks\.\d+\.self_attn\.(q|k|v|o)"
_CROSS_ATTENTION = r"blocks\.\d+\.cross_attn\.(q|k|v|o|k_img|v_img)"
_FEED_FORWARD = r"blocks\.\d+\.ffn\.(0|2)"

_UMT5_XXL = Layout(
    blocks=("encoder.encoder.block",),
    count=24,
    adapters=(),
    quantise=(r"blocks\.\d+\.(attn\.(q|k|v|o)|ffn\.(gate\.0|fc1|fc2))",),
)
"""All Linears of umT5's blocks; its embeddings, position biases and norms stay as they are."""

_COMFY = "Comfy-Org/Wan_2.1_ComfyUI_repackaged@main:split_files"
_OFFICIAL = "Wan-AI/Wan2.1-I2V-14B-720P@main"

_NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，"  # noqa: RUF001
    "JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，"  # noqa: RUF001
    "手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"  # noqa: RUF001
)
"""The negative prompt that Wan's authors ship."""


@attrs.frozen(kw_only=True)
class Published:
    """What tells a published transformer: its title, widths and depth, and its file."""

    title: str
    dim: int
    ffn_dim: int
    num_layers: int
    file: str


PUBLISHED: Mapping[Task, Published] = MappingProxyType(
    {
        "t2v_1_3b": Published(
            title="Wan 2.1 T2V 1.3B", dim=1536, ffn_dim=8960, num_layers=30, file="wan2.1_t2v_1.3B_bf16"
        ),
        "t2v_14b": Published(
            title="Wan 2.1 T2V 14B", dim=5120, ffn_dim=13824, num_layers=40, file="wan2.1_t2v_14B_bf16"
        ),
    }
)


@attrs.frozen(kw_only=True)
class Wan(Architecture):
    """Wan 2.1, text to video and text to picture.

    Args:
        task: The published model whose architecture and defaults apply.
        weights: Files to use instead of the published ones, by component: ``dit``, ``vae``, ``t5``, ``tokenizer``.

    Example:
        >>> from musubi import Wan
        >>> Wan.t2v_1_3b().with_weights(dit="wan2.1_t2v_1.3B_bf16.safetensors").weight("dit").name
        'wan2.1_t2v_1.3B_bf16.safetensors'
    """

    kind: ClassVar[str] = "wan"
    name: ClassVar[str] = "wan"
    cache_suffix: ClassVar[str] = "wan"

    task: Task = field(check=one_of(*PUBLISHED))

    @classmethod
    def t2v_1_3b(cls) -> Self:
        """Return Wan 2.1 T2V with 1.3 billion parameters."""
        return cls(task="t2v_1_3b")

    @classmethod
    def t2v_14b(cls) -> Self:
        """Return Wan 2.1 T2V with 14 billion parameters."""
        return cls(task="t2v_14b")

    @property
    def published(self) -> Published:
        """The published model of this task."""
        return PUBLISHED[self.task]

    @property
    def title(self) -> str:
        """What messages call this variant, e.g. ``Wan 2.1 T2V 14B``."""
        return self.published.title

    @property
    def geometry(self) -> Geometry:
        """Sides in 16 pixels, clips of 4 k + 1 frames at 16 frames a second, 16 latent channels at an eighth."""
        return GEOMETRY

    @property
    def layout(self) -> Layout:
        """One list of blocks; the reference's target modules and its rule of what is quantised.

        Presets: ``attention`` (both), ``self_attention``, ``cross_attention`` and ``feed_forward``.
        """
        return Layout(
            blocks=("blocks",),
            count=self.published.num_layers,
            adapters=(_SELF_ATTENTION, _CROSS_ATTENTION, _FEED_FORWARD),
            quantise=(r"blocks\..*",),
            keep=(r".*(norm|patch_embedding|text_embedding|time_embedding|time_projection|head|modulation|img_emb).*",),
            presets={
                "attention": (_SELF_ATTENTION, _CROSS_ATTENTION),
                "self_attention": (_SELF_ATTENTION,),
                "cross_attention": (_CROSS_ATTENTION,),
                "feed_forward": (_FEED_FORWARD,),
            },
        )

    @property
    def keys(self) -> KeyMap:
        """Original names <-> diffusers' names."""
        return DIT

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Latents from pixels, text from captions; each needs one component."""
        return (
            Stage(name="latents", components=("vae",), reads=("pixels",)),
            Stage(name="text", components=("t5",), reads=("caption",)),
        )

    @property
    def components(self) -> tuple[Component, ...]:
        """The VAE, which can work in tiles of 8 pixels' multiples, and umT5-XXL with its 24 blocks."""
        return (
            Component(name="vae", role="vae", tile=GEOMETRY.stride),
            Component(name="t5", role="text", layout=_UMT5_XXL, keys=TEXT_ENCODER, tables=("encoder.shared",)),
        )

    @property
    def timesteps(self) -> TimestepSampler:
        """Logit-normal noise levels shifted by 3, the reference's advice for this model."""
        from musubi.noise.timesteps import Shift

        return Shift(shift=3.0)

    @property
    def sampler(self) -> Sampler:
        """UniPC on a grid shifted by 5, as published."""
        from musubi.noise.samplers import UniPC

        return UniPC(shift=5.0)

    @property
    def generation(self) -> Generation:
        """The authors' defaults."""
        return Generation(size=(832, 480), frames=81, steps=50, guidance=5.0, fps=16.0, negative=_NEGATIVE)

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the reference writes for this family."""
        return {
            "modelspec.architecture": "wan2.1/lora",
            "modelspec.implementation": "https://github.com/Wan-Video/Wan2.1",
            "modelspec.license": "apache-2.0",
        }

    @property
    def interchange(self) -> Interchange:
        """Original names with alpha load whole in ComfyUI and in diffusers, for any subset of modules."""
        return Interchange(layout="comfy", diffusers="WanPipeline")

    def linears(self) -> Mapping[str, tuple[int, int]]:
        """Return (inputs, outputs) of every Linear of the published transformer by original name; imports torch."""
        from musubi.architectures.wan.denoiser import empty_transformer
        from musubi.architectures.wan.facts import published_facts
        from musubi.networks.groups import shapes_of

        return shapes_of(empty_transformer(published_facts(self.published)), self.keys)

    def default_weights(self) -> Mapping[str, WeightsRef]:
        """Return where each component is published."""
        return {
            "dit": WeightsRef(f"{_COMFY}/diffusion_models/{self.published.file}.safetensors"),
            "vae": WeightsRef(f"{_COMFY}/vae/wan_2.1_vae.safetensors"),
            "t5": WeightsRef(f"{_OFFICIAL}:models_t5_umt5-xxl-enc-bf16.pth"),
            "tokenizer": WeightsRef("Wan-AI/Wan2.1-T2V-14B@main:google/umt5-xxl"),
        }

    def codec(self) -> WanCodec:
        """Return the VAE and text side; imports torch."""
        from musubi.architectures.wan.codec import WanCodec

        return WanCodec(self)

    def denoiser(self) -> WanDenoiser:
        """Return the transformer side; imports torch."""
        from musubi.architectures.wan.denoiser import WanDenoiser

        return WanDenoiser(self)
