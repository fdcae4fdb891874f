"""Which FramePack: the variant as the user's choice, everything else as facts that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import attrs

from musubi.architecture import Architecture, Generation, Geometry, Interchange, Layout, Stage
from musubi.architectures.framepack.keys import DIT
from musubi.core.fields import field, one_of
from musubi.core.refs import WeightsRef
from musubi.keymap import KeyMap

if TYPE_CHECKING:
    from musubi.noise.samplers import Sampler
    from musubi.noise.timesteps import TimestepSampler

Variant = Literal["inverted", "f1"]

GEOMETRY = Geometry(multiple=16, stride=8, frame_step=4, channels=16, patch=(1, 2, 2), fps=30.0)
"""Sides in 16 pixels, clips of 4 k + 1 frames at 30 frames a second, 16 latent channels at an eighth of the size."""

_DOUBLE_ATTENTION = (
    r"transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
)
_DOUBLE_FEED_FORWARD = r"transformer_blocks\.\d+\.ff(_context)?\.net\.(0\.proj|2)"
_SINGLE_ATTENTION = r"single_transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v)"
_SINGLE_FEED_FORWARD = r"single_transformer_blocks\.\d+\.(proj_mlp|proj_out)"
_MODULATION = (
    r"transformer_blocks\.\d+\.norm1(_context)?\.linear",
    r"single_transformer_blocks\.\d+\.norm\.linear",
)

_ENCODERS = "Comfy-Org/HunyuanVideo_repackaged@main:split_files/text_encoders"
_COMMUNITY = "hunyuanvideo-community/HunyuanVideo@main"


@attrs.frozen(kw_only=True)
class Published:
    """What tells a published model: its title and its files."""

    title: str
    files: str


PUBLISHED: Mapping[Variant, Published] = MappingProxyType(
    {
        "inverted": Published(title="FramePack", files="lllyasviel/FramePackI2V_HY@main:"),
        "f1": Published(title="FramePack-F1", files="lllyasviel/FramePack_F1_I2V_HY_20250503@main:"),
    }
)


@attrs.frozen(kw_only=True)
class FramePack(Architecture):
    """FramePack, which makes a clip from a picture and words, section by section, the last one first; or FramePack-F1.

    The two transformers have the same names and shapes, so the variant cannot be read from a file: choose it. This
    version describes the models, scans data for them, cuts clips into sections, reads their checkpoints, and reads,
    converts and merges LoRAs of them; it does not encode, train or generate with them yet.

    Args:
        variant: ``inverted`` predicts the last section first, ``f1`` the first one.
        weights: Files to use instead of the published ones: ``dit``, ``vae``, ``llm``, ``clip_l``, ``image_encoder``,
            ``llm_tokenizer``, ``clip_l_tokenizer``.

    Example:
        >>> from musubi import FramePack
        >>> FramePack.f1().title
        'FramePack-F1'
    """

    kind: ClassVar[str] = "framepack"
    name: ClassVar[str] = "framepack"
    cache_suffix: ClassVar[str] = "fp"

    variant: Variant = field(default="inverted", check=one_of(*PUBLISHED))

    @classmethod
    def inverted(cls) -> Self:
        """Return FramePack as first published: the last section comes first."""
        return cls(variant="inverted")

    @classmethod
    def f1(cls) -> Self:
        """Return FramePack-F1: sections follow one another in time."""
        return cls(variant="f1")

    @property
    def published(self) -> Published:
        """The published model of this variant."""
        return PUBLISHED[self.variant]

    @property
    def title(self) -> str:
        """What messages call this variant, e.g. ``FramePack-F1``."""
        return self.published.title

    @property
    def geometry(self) -> Geometry:
        """Clips and stills; a clip shorter than a section, 37 frames, cannot be trained on as one."""
        return GEOMETRY

    @property
    def layout(self) -> Layout:
        """20 double, then 40 single blocks; the reference's 440 targets, which leave modulation out.

        Presets: ``attention`` (280), ``feed_forward`` (160), ``double_blocks`` (240), ``single_blocks`` (200), and
        ``with_modulation`` (520), which adds to the default set.
        """
        double, single = (_DOUBLE_ATTENTION, _DOUBLE_FEED_FORWARD), (_SINGLE_ATTENTION, _SINGLE_FEED_FORWARD)
        return Layout(
            blocks=("transformer_blocks", "single_transformer_blocks"),
            count=60,
            adapters=(*double, *single),
            quantise=(r"(transformer_blocks|single_transformer_blocks)\..*",),
            keep=(r".*norm.*",),
            presets={
                "attention": (_DOUBLE_ATTENTION, _SINGLE_ATTENTION),
                "feed_forward": (_DOUBLE_FEED_FORWARD, _SINGLE_FEED_FORWARD),
                "double_blocks": double,
                "single_blocks": single,
                "with_modulation": (*double, *single, *_MODULATION),
            },
        )

    @property
    def keys(self) -> KeyMap:
        """Original names are the library's."""
        return DIT

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Latents of a clip's sections, what its first frame shows, and text from captions, by two encoders."""
        return (
            Stage(name="latents", components=("vae",), reads=("pixels",)),
            Stage(name="image", components=("image_encoder",), reads=("pixels",)),
            Stage(name="text", components=("llm", "clip_l"), reads=("caption",)),
        )

    @property
    def timesteps(self) -> TimestepSampler:
        """Logit-normal noise levels shifted by 3, the reference's advice for this model."""
        from musubi.noise.timesteps import Shift

        return Shift(shift=3.0)

    @property
    def sampler(self) -> Sampler:
        """UniPC on a grid shifted by 7.

        The authors shift the more the larger a section is, by 7 at most; that is reached at 512x512.
        """
        from musubi.noise.samplers import UniPC

        return UniPC(shift=7.0)

    @property
    def generation(self) -> Generation:
        """The authors' defaults, four sections; guidance is an input of the model, without a second pass."""
        return Generation(size=(640, 640), frames=145, steps=25, guidance=10.0, fps=30.0)

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the reference writes for this family, and the licence of the HunyuanVideo weights behind it."""
        return {
            "modelspec.architecture": "framepack/lora",
            "modelspec.implementation": "https://github.com/lllyasviel/FramePack",
            "modelspec.license": "tencent-hunyuan-community",
        }

    @property
    def interchange(self) -> Interchange:
        """Names of diffusers without alpha, all that its loader takes; ComfyUI itself does not have this model."""
        return Interchange(layout="diffusers", diffusers="HunyuanVideoFramepackPipeline", comfy=False)

    def linears(self) -> Mapping[str, tuple[int, int]]:
        """Return (inputs, outputs) of every Linear of the published transformer by name; imports torch."""
        from musubi.architectures.framepack.facts import DitFacts
        from musubi.architectures.framepack.transformer import empty_transformer
        from musubi.networks.groups import shapes_of

        return shapes_of(empty_transformer(DitFacts()), self.keys)

    def default_weights(self) -> Mapping[str, WeightsRef]:
        """Return where each component is published."""
        return {
            "dit": WeightsRef(self.published.files),
            "vae": WeightsRef(f"{_COMMUNITY}:vae/diffusion_pytorch_model.safetensors"),
            "llm": WeightsRef(f"{_ENCODERS}/llava_llama3_fp16.safetensors"),
            "clip_l": WeightsRef(f"{_ENCODERS}/clip_l.safetensors"),
            "image_encoder": WeightsRef("Comfy-Org/sigclip_vision_384@main:sigclip_vision_patch14_384.safetensors"),
            "llm_tokenizer": WeightsRef(f"{_COMMUNITY}:tokenizer"),
            "clip_l_tokenizer": WeightsRef(f"{_COMMUNITY}:tokenizer_2"),
        }
