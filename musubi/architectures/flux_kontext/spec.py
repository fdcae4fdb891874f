"""FLUX.1 Kontext: the facts that follow from the published model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Self

import attrs

from musubi.architecture import (
    Architecture,
    ComfyNames,
    Component,
    Generation,
    Geometry,
    Interchange,
    Layout,
    Roles,
    Size,
    Stage,
)
from musubi.architectures.flux_kontext.keys import DIT
from musubi.architectures.flux_kontext.text_facts import T5
from musubi.core.fields import at_least, field
from musubi.core.refs import WeightsRef
from musubi.keymap import KeyMap

if TYPE_CHECKING:
    from musubi.architectures.flux_kontext.codec import FluxKontextCodec
    from musubi.architectures.flux_kontext.denoiser import FluxKontextDenoiser
    from musubi.noise.samplers import Sampler
    from musubi.noise.timesteps import ResolutionShift

GEOMETRY = Geometry(multiple=16, stride=8, channels=16, patch=(1, 2, 2), video=False)
"""Single pictures with sides in 16 pixels, 16 latent channels at an eighth of the size."""

_SIZE = (1024, 1024)
_OFFICIAL = "black-forest-labs/FLUX.1-Kontext-dev@main"
_ENCODERS = "comfyanonymous/flux_text_encoders@main"

_DOUBLE_ATTENTION = r"double_blocks\.\d+\.(img|txt)_attn\.(qkv|proj)"
_DOUBLE_MLP = r"double_blocks\.\d+\.(img|txt)_mlp\.(0|2)"
_SINGLE = r"single_blocks\.\d+\.linear(1|2)"
_MODULATION = (r"double_blocks\.\d+\.(img|txt)_mod\.lin", r"single_blocks\.\d+\.modulation\.lin")


@attrs.frozen(kw_only=True)
class FluxKontext(Architecture):
    """FLUX.1 Kontext dev, which changes one picture, or several, as words say; without any it draws from words.

    The published weights are under a non-commercial licence and must be accepted on the Hub.

    Args:
        training_guidance: The scale that the model is told in training, where nothing follows it: 1.0, as musubi-tuner
            has it. Generations tell it their own, 2.5 unless the request says another.
        weights: Files to use instead of the published ones: ``dit``, ``vae``, ``t5``, ``clip_l``, ``t5_tokenizer``,
            ``clip_l_tokenizer``.

    Example:
        >>> from musubi import FluxKontext
        >>> FluxKontext.dev().roles.required
        ('control',)
    """

    kind: ClassVar[str] = "flux_kontext"
    name: ClassVar[str] = "flux_kontext"
    cache_suffix: ClassVar[str] = "fk"

    training_guidance: float = field(default=1.0, check=at_least(0))

    @classmethod
    def dev(cls, *, training_guidance: float = 1.0) -> Self:
        """Return FLUX.1 Kontext dev."""
        return cls(training_guidance=training_guidance)

    @property
    def title(self) -> str:
        """What messages call this model."""
        return "FLUX.1 Kontext dev"

    @property
    def geometry(self) -> Geometry:
        """Single pictures."""
        return GEOMETRY

    @property
    def layout(self) -> Layout:
        """19 double, then 38 single blocks; the reference's 228 targets, which leave modulation out.

        Presets: ``attention`` (of the double blocks; the single ones fuse it with their feed-forward),
        ``double_blocks``, ``single_blocks``, and ``with_modulation``, which adds to the default set.
        """
        default = (_DOUBLE_ATTENTION, _DOUBLE_MLP, _SINGLE)
        return Layout(
            blocks=("transformer_blocks", "single_transformer_blocks"),
            count=57,
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
    def roles(self) -> Roles:
        """One picture to start from, as ``control``, or several."""
        return Roles(required=("control",))

    @property
    def request_roles(self) -> Roles:
        """Pictures to start from, or none: then the model draws from words alone."""
        return Roles(optional=("control",))

    @property
    def sizes_controls(self) -> bool:
        """Each picture may have its own size."""
        return True

    @property
    def request_stages(self) -> tuple[Stage, ...]:
        """The pictures to start from."""
        return (Stage(name="control", components=("vae",), reads=()),)

    @property
    def components(self) -> tuple[Component, ...]:
        """The VAE, which can work in tiles, T5-XXL with its 24 blocks, and CLIP."""
        vae, clip = Component(name="vae", role="vae", tile=GEOMETRY.stride), Component(name="clip_l", role="text")
        return (vae, T5, clip)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Latents of picture and control, text of captions."""
        return (
            Stage(name="latents", components=("vae",), reads=("pixels", "controls")),
            Stage(name="text", components=("t5", "clip_l"), reads=("caption",)),
        )

    @property
    def timesteps(self) -> ResolutionShift:
        """Logit-normal noise levels, shifted the more the larger the picture is, as the model's own sampling is."""
        from musubi.noise.timesteps import ResolutionShift

        return ResolutionShift(tokens=(256, 4096), mu=(0.5, 1.15))

    @property
    def sampler(self) -> Sampler:
        """Euler on the grid that the model's own rule gives at its default size."""
        return self.sampler_for(_SIZE)

    def sampler_for(self, size: Size) -> Sampler:
        """Return Euler on the grid of the model's own rule: the larger the picture, the more it is shifted."""
        from musubi.noise.samplers import Euler

        mu, _ = self.timesteps.logit(GEOMETRY.tokens(GEOMETRY.latent_shape(size)))
        return Euler(shift=math.exp(mu))

    @property
    def generation(self) -> Generation:
        """The authors' defaults; guidance is an input of the model, without a second pass for a negative prompt."""
        from musubi.noise.embedded import Embedded

        return Generation(size=_SIZE, frames=1, steps=28, guidance=Embedded(scale=2.5), fps=1.0)

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the reference writes for this family, and the licence of the published weights."""
        return {
            "modelspec.architecture": "Flux.1-dev/lora",
            "modelspec.implementation": "https://github.com/black-forest-labs/flux",
            "modelspec.license": "flux-1-dev-non-commercial-license",
        }

    @property
    def interchange(self) -> Interchange:
        """Original names with alpha load whole in ComfyUI and in diffusers; ComfyUI takes diffusers' names, too."""
        return Interchange(
            layout="comfy",
            diffusers="FluxKontextPipeline",
            comfy_names=ComfyNames(library=True),
            swapped=(r"final_layer\.adaLN_modulation\.1",),
        )

    def linears(self) -> Mapping[str, tuple[int, int]]:
        """Return (inputs, outputs) of every Linear of the published transformer by original name; imports torch."""
        from musubi.architectures.flux_kontext.facts import DitFacts
        from musubi.architectures.flux_kontext.transformer import empty_transformer
        from musubi.networks.groups import shapes_of

        return shapes_of(empty_transformer(DitFacts()), self.keys)

    def default_weights(self) -> Mapping[str, WeightsRef]:
        """Return where each component is published."""
        return {
            "dit": WeightsRef(f"{_OFFICIAL}:flux1-kontext-dev.safetensors"),
            "vae": WeightsRef(f"{_OFFICIAL}:ae.safetensors"),
            "t5": WeightsRef(f"{_ENCODERS}:t5xxl_fp16.safetensors"),
            "clip_l": WeightsRef(f"{_ENCODERS}:clip_l.safetensors"),
            "t5_tokenizer": WeightsRef(f"{_OFFICIAL}:tokenizer_2"),
            "clip_l_tokenizer": WeightsRef(f"{_OFFICIAL}:tokenizer"),
        }

    def codec(self) -> FluxKontextCodec:
        """Return the VAE and the text side; imports torch."""
        from musubi.architectures.flux_kontext.codec import FluxKontextCodec

        return FluxKontextCodec(self)

    def denoiser(self) -> FluxKontextDenoiser:
        """Return the transformer side; imports torch."""
        from musubi.architectures.flux_kontext.denoiser import FluxKontextDenoiser

        return FluxKontextDenoiser(self)
