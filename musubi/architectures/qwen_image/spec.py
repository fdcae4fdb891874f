"""Which Qwen-Image: the task as the user's choice, everything else as facts that follow from it."""

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
from musubi.architectures.qwen_image.keys import DIT
from musubi.architectures.qwen_image.tasks import MARK, PUBLISHED, TEXT_ENCODER, TOKENIZER, VAE, Published, Task
from musubi.architectures.qwen_image.vl_facts import COMPONENT as TEXT_ENCODER_FACTS
from musubi.core.fields import field, one_of
from musubi.core.refs import WeightsRef
from musubi.keymap import KeyMap

if TYPE_CHECKING:
    from musubi.architectures.qwen_image.codec import QwenImageCodec
    from musubi.architectures.qwen_image.denoiser import QwenImageDenoiser
    from musubi.noise.samplers import Sampler
    from musubi.noise.timesteps import ResolutionShift

GEOMETRY = Geometry(multiple=16, stride=8, channels=16, patch=(1, 2, 2), video=False)
"""Single pictures with sides in 16 pixels, 16 latent channels at an eighth of the size."""

_ATTENTION = r"transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
_MLP = r"transformer_blocks\.\d+\.(img|txt)_mlp\.net\.(0\.proj|2)"
_MODULATION = r"transformer_blocks\.\d+\.(img|txt)_mod\.1"


@attrs.frozen(kw_only=True)
class QwenImage(Architecture):
    """Qwen-Image, and the models of its family that change pictures: Edit, Edit-2509 and Edit-2511.

    Their transformers have the same names and shapes, so the task cannot be read from a file: choose it. ``edit`` shows
    the language model one picture, the others show it as many as there are; the transformer sees all of them, each in
    its own size.

    Args:
        task: The published model whose conditions and defaults apply.
        weights: Files to use instead of the published ones: ``dit``, ``vae``, ``text_encoder``, ``tokenizer``.

    Example:
        >>> from musubi import QwenImage
        >>> QwenImage.edit_2509().roles.required
        ('control',)
    """

    kind: ClassVar[str] = "qwen_image"
    name: ClassVar[str] = "qwen_image"
    cache_suffix: ClassVar[str] = "qi"

    task: Task = field(default="text_to_image", check=one_of(*PUBLISHED))

    @classmethod
    def text_to_image(cls) -> Self:
        """Return Qwen-Image, which draws a picture from words."""
        return cls(task="text_to_image")

    @classmethod
    def edit(cls) -> Self:
        """Return Qwen-Image-Edit, which changes one picture."""
        return cls(task="edit")

    @classmethod
    def edit_2509(cls) -> Self:
        """Return Qwen-Image-Edit-2509, which draws on several pictures."""
        return cls(task="edit_2509")

    @classmethod
    def edit_2511(cls) -> Self:
        """Return Qwen-Image-Edit-2511, which draws on several pictures and is told that these have no noise."""
        return cls(task="edit_2511")

    @property
    def published(self) -> Published:
        """The published model of this task."""
        return PUBLISHED[self.task]

    @property
    def title(self) -> str:
        """What messages call this variant, e.g. ``Qwen-Image-Edit``."""
        return self.published.title

    @property
    def edits(self) -> bool:
        """Whether every sample needs a picture to start from."""
        return self.task != "text_to_image"

    @property
    def geometry(self) -> Geometry:
        """Single pictures."""
        return GEOMETRY

    @property
    def layout(self) -> Layout:
        """One list of blocks; the reference's targets, modulation included (14 in each of 60 blocks: 840).

        Presets: ``without_modulation`` (720), ``attention`` (480) and ``feed_forward`` (240).
        """
        return Layout(
            blocks=("transformer_blocks",),
            count=60,
            adapters=(_ATTENTION, _MLP, _MODULATION),
            quantise=(r"transformer_blocks\..*",),
            keep=(r".*norm.*", r".*time_text_embed.*"),
            presets={
                "without_modulation": (_ATTENTION, _MLP),
                "attention": (_ATTENTION,),
                "feed_forward": (_MLP,),
            },
        )

    @property
    def keys(self) -> KeyMap:
        """Original names are the library's."""
        return DIT

    @property
    def roles(self) -> Roles:
        """Editing needs a ``control`` picture, or several."""
        return Roles(required=("control",)) if self.edits else Roles()

    @property
    def request_roles(self) -> Roles:
        """In editing, the pictures to change."""
        return self.roles

    @property
    def sizes_controls(self) -> bool:
        """Whether there are pictures to change: each may have its own size."""
        return self.edits

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Latents from pixels, text from captions; when editing, the VAE and the language model see pictures, too."""
        if self.edits:
            return (
                Stage(name="latents", components=("vae",), reads=("pixels", "controls")),
                Stage(name="text", components=("text_encoder",), reads=("caption", "originals")),
            )
        return (
            Stage(name="latents", components=("vae",), reads=("pixels",)),
            Stage(name="text", components=("text_encoder",), reads=("caption",)),
        )

    @property
    def request_stages(self) -> tuple[Stage, ...]:
        """The pictures to change."""
        return (Stage(name="control", components=("vae",), reads=()),) if self.edits else ()

    @property
    def components(self) -> tuple[Component, ...]:
        """The VAE, which can work in tiles, and Qwen2.5-VL with its blocks."""
        return (Component(name="vae", role="vae", tile=GEOMETRY.stride), TEXT_ENCODER_FACTS)

    @property
    def timesteps(self) -> ResolutionShift:
        """Logit-normal noise levels, shifted the more the larger the picture is, as the model's own sampling is."""
        from musubi.noise.timesteps import ResolutionShift

        return ResolutionShift(tokens=(256, 8192), mu=(0.5, 0.9))

    @property
    def sampler(self) -> Sampler:
        """Euler on the grid that the model's own rule gives at its default size."""
        return self.sampler_for(self.published.size)

    def sampler_for(self, size: Size) -> Sampler:
        """Return Euler on the grid of the model's own rule: the larger, the more it is shifted; it ends at 0.02."""
        from musubi.noise.samplers import Euler

        mu, _ = self.timesteps.logit(GEOMETRY.tokens(GEOMETRY.latent_shape(size)))
        return Euler(shift=math.exp(mu), terminal=0.02)

    @property
    def generation(self) -> Generation:
        """The authors' defaults; guidance is classifier-free against a blank prompt, and makes nothing longer."""
        from musubi.noise.norm_preserving import NormPreserving

        size, steps = self.published.size, self.published.steps
        return Generation(size=size, frames=1, steps=steps, guidance=NormPreserving(scale=4.0), fps=1.0, negative=" ")

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the reference writes for this family, and the licence of the published weights."""
        return {
            "ss_base_model_version": self.published.base,
            "modelspec.architecture": self.published.architecture,
            "modelspec.implementation": "https://github.com/QwenLM/Qwen-Image",
            "modelspec.license": "apache-2.0",
        }

    @property
    def marks(self) -> tuple[str, ...]:
        """What ComfyUI knows files of Edit-2511 by."""
        return (MARK,) if self.published.zero_time else ()

    @property
    def interchange(self) -> Interchange:
        """Original names with alpha load whole in ComfyUI and in diffusers; all tasks have the same loader there."""
        return Interchange(
            layout="comfy", diffusers="QwenImagePipeline", comfy_names=ComfyNames(prefixes=("", "transformer."))
        )

    def linears(self) -> Mapping[str, tuple[int, int]]:
        """Return (inputs, outputs) of every Linear of the published transformer by name; imports torch."""
        from musubi.architectures.qwen_image.facts import DitFacts
        from musubi.architectures.qwen_image.transformer import empty_transformer
        from musubi.networks.groups import shapes_of

        return shapes_of(empty_transformer(DitFacts()), self.keys)

    def default_weights(self) -> Mapping[str, WeightsRef]:
        """Return where each component is published."""
        return {
            "dit": WeightsRef(self.published.file),
            "vae": WeightsRef(VAE),
            "text_encoder": WeightsRef(TEXT_ENCODER),
            "tokenizer": WeightsRef(TOKENIZER),
        }

    def codec(self) -> QwenImageCodec:
        """Return the VAE and the language model; imports torch."""
        from musubi.architectures.qwen_image.codec import QwenImageCodec

        return QwenImageCodec(self)

    def denoiser(self) -> QwenImageDenoiser:
        """Return the transformer side; imports torch."""
        from musubi.architectures.qwen_image.denoiser import QwenImageDenoiser

        return QwenImageDenoiser(self)
