"""Which Wan model: the task as the user's choice, everything else as facts that follow from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, Self

import attrs

from musubi.architecture import (
    Architecture,
    Component,
    Expert,
    Generation,
    Geometry,
    Interchange,
    Layout,
    Roles,
    Size,
    Stage,
)
from musubi.architectures.wan.keys import DIT, TEXT_ENCODER
from musubi.architectures.wan.one_frame import OneFrame
from musubi.architectures.wan.sight import Sight, sight_of
from musubi.architectures.wan.tasks import CLIP, PUBLISHED, T5, TOKENIZER, Published, Task
from musubi.core.errors import Issue
from musubi.core.fields import field, one_of
from musubi.core.refs import WeightsRef
from musubi.keymap import KeyMap

if TYPE_CHECKING:
    from musubi.architectures.wan.codec import WanCodec
    from musubi.architectures.wan.denoiser import WanDenoiser
    from musubi.noise.samplers import Sampler
    from musubi.noise.timesteps import TimestepSampler

TEXT_LENGTH = 512
"""Tokens the transformer sees of every caption, padding included."""

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

_SMALL_SIZES = ((832, 480), (480, 832))


@attrs.frozen(kw_only=True)
class Wan(Architecture):
    """Wan 2.1 and 2.2: clips and pictures from words, from pictures, and after control clips.

    Args:
        task: The published model whose architecture and defaults apply.
        one_frame: Train a model that takes a picture to make single pictures from others, each at its place in time.
        from_picture: Show ``ti2v_5b`` the first picture of every clip in training, as a generation from a picture does;
            else it learns from words alone. (The other tasks that take pictures always see them.)
        weights: Files to use instead of the published ones, by component: ``dit`` (``dit_high`` and ``dit_low`` of the
            two experts of Wan 2.2 A14B), ``vae``, ``t5``, ``tokenizer``, and ``clip`` where a task needs it.

    Example:
        >>> from musubi import Wan
        >>> Wan.t2v_1_3b().with_weights(dit="wan2.1_t2v_1.3B_bf16.safetensors").weight("dit").name
        'wan2.1_t2v_1.3B_bf16.safetensors'
        >>> [(expert.name, expert.low, expert.high) for expert in Wan.t2v_a14b().experts]
        [('high', 0.875, 1.0), ('low', 0.0, 0.875)]
    """

    kind: ClassVar[str] = "wan"
    name: ClassVar[str] = "wan"
    cache_suffix: ClassVar[str] = "wan"

    task: Task = field(check=one_of(*PUBLISHED))
    one_frame: OneFrame | None = None
    from_picture: bool = False

    @classmethod
    def t2v_1_3b(cls) -> Self:
        """Return Wan 2.1 T2V with 1.3 billion parameters."""
        return cls(task="t2v_1_3b")

    @classmethod
    def t2v_14b(cls) -> Self:
        """Return Wan 2.1 T2V with 14 billion parameters."""
        return cls(task="t2v_14b")

    @classmethod
    def t2i_14b(cls) -> Self:
        """Return Wan 2.1 T2V with 14 billion parameters, for pictures."""
        return cls(task="t2i_14b")

    @classmethod
    def i2v_14b(cls, *, one_frame: OneFrame | None = None) -> Self:
        """Return Wan 2.1 I2V with 14 billion parameters, which continues a picture."""
        return cls(task="i2v_14b", one_frame=one_frame)

    @classmethod
    def flf2v_14b(cls, *, one_frame: OneFrame | None = None) -> Self:
        """Return Wan 2.1 FLF2V with 14 billion parameters, which joins two pictures."""
        return cls(task="flf2v_14b", one_frame=one_frame)

    @classmethod
    def t2v_1_3b_control(cls) -> Self:
        """Return Wan 2.1 Fun Control with 1.3 billion parameters, which follows a clip."""
        return cls(task="t2v_1_3b_control")

    @classmethod
    def t2v_14b_control(cls) -> Self:
        """Return Wan 2.1 Fun Control with 14 billion parameters, which follows a clip."""
        return cls(task="t2v_14b_control")

    @classmethod
    def i2v_14b_control(cls) -> Self:
        """Return Wan 2.1 Fun Control with 14 billion parameters, which follows a clip and continues a picture."""
        return cls(task="i2v_14b_control")

    @classmethod
    def t2v_a14b(cls) -> Self:
        """Return Wan 2.2 T2V with two experts of 14 billion parameters."""
        return cls(task="t2v_a14b")

    @classmethod
    def i2v_a14b(cls, *, one_frame: OneFrame | None = None) -> Self:
        """Return Wan 2.2 I2V, which continues a picture, with two experts of 14 billion parameters."""
        return cls(task="i2v_a14b", one_frame=one_frame)

    @classmethod
    def ti2v_5b(cls, *, from_picture: bool = False) -> Self:
        """Return Wan 2.2 TI2V with 5 billion parameters and a VAE of its own: from words, and from a picture."""
        return cls(task="ti2v_5b", from_picture=from_picture)

    def problems(self) -> Iterable[Issue]:
        """Yield unknown components, and what this task cannot do."""
        yield from super().problems()
        if self.one_frame is not None and not self._places_pictures:
            yield Issue("one_frame", f"{self.title} makes no single pictures from others", "use Wan.i2v_14b()")
        if self.from_picture and not sight_of(self.task).start:
            yield Issue("from_picture", f"is for ti2v_5b, not for {self.title}", "leave it out")

    @property
    def published(self) -> Published:
        """The published model of this task."""
        return PUBLISHED[self.task]

    @property
    def title(self) -> str:
        """What messages call this variant, e.g. ``Wan 2.1 T2V 14B``."""
        return self.published.title

    @property
    def sight(self) -> Sight:
        """What the transformer sees beside noise and text."""
        return sight_of(self.task, self.one_frame)

    @property
    def geometry(self) -> Geometry:
        """Clips of 4 k + 1 frames; 16 frames a second, sides in 16 pixels and 16 latent channels at an eighth.

        Of TI2V 5B 24 frames a second, sides in 32 pixels and 48 channels at a sixteenth.
        """
        return self.published.geometry

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
        """Latents from pixels, with what lies beside them, CLIP's features, text from captions: a component each."""
        sight, single = self.sight, self.one_frame is not None
        return (
            _stage("latents", "vae", controls=sight.control or single),
            *([_stage("clip", "clip", controls=single)] if sight.clip else []),
            Stage(name="text", components=("t5",), reads=("caption",)),
        )

    @property
    def request_stages(self) -> tuple[Stage, ...]:
        """What a generation shows the model: pictures, a control clip, a clip to change, pictures for CLIP."""
        sight, single = self.sight, self.one_frame is not None
        shown = {
            "image": (sight.image or sight.start) and not single,
            "control": sight.control or single,
            "video": not single,
        }
        stages = [Stage(name=name, components=("vae",), reads=()) for name, there in shown.items() if there]
        return (*stages, *([Stage(name="clip", components=("clip",), reads=())] if sight.clip else []))

    @property
    def roles(self) -> Roles:
        """A control clip or, for single pictures, control pictures; the others are parts of the item itself."""
        return Roles(required=("control",)) if self.sight.control or self.one_frame is not None else Roles()

    @property
    def request_roles(self) -> Roles:
        """The first picture, where the task continues one, the last one, a control clip, and a clip to change."""
        sight = self.sight
        if self.one_frame is not None:
            return Roles(required=("control",), optional=("image", "last") if sight.clip else ())
        required = [role for role, there in (("image", sight.image), ("control", sight.control)) if there]
        optional = [role for role, there in (("image", sight.start), ("last", sight.image)) if there]
        return Roles(required=tuple(required), optional=(*optional, "video"))

    @property
    def target_position(self) -> int | None:
        """Where in time the single picture lies; None where clips are made."""
        return None if self.one_frame is None else self.one_frame.target

    def at_positions(self, target: int, controls: tuple[int, ...]) -> Self:
        """Return the same variant, making single pictures at ``target`` in time from control pictures at ``controls``.

        Raises:
            ConfigError: The task takes no pictures, or the places are wrong.
        """
        if not self._places_pictures:
            return super().at_positions(target, controls)
        return self.replace(one_frame=OneFrame(target=target, controls=controls))

    @property
    def experts(self) -> tuple[Expert, ...]:
        """One model for all noise levels; of Wan 2.2 A14B one for high and one for low levels."""
        border = self.published.boundary
        if border is None:
            return (Expert(),)
        return (
            Expert(name="high", component="dit_high", low=border, high=1.0),
            Expert(name="low", component="dit_low", low=0.0, high=border),
        )

    @property
    def components(self) -> tuple[Component, ...]:
        """The VAE, which can work in tiles, umT5-XXL with its 24 blocks, and CLIP where it is looked at."""
        return (
            Component(name="vae", role="vae", tile=self.geometry.stride),
            *([Component(name="clip", role="image")] if self.sight.clip else []),
            Component(name="t5", role="text", layout=_UMT5_XXL, keys=TEXT_ENCODER, tables=("encoder.shared",)),
        )

    @property
    def timesteps(self) -> TimestepSampler:
        """Logit-normal noise levels, shifted: by 3 as the reference advises for Wan 2.1, for 2.2 as in generation."""
        from musubi.noise.timesteps import Shift

        return Shift(shift=self.published.training_shift)

    @property
    def sampler(self) -> Sampler:
        """UniPC on a shifted grid, as published."""
        from musubi.noise.samplers import UniPC

        return UniPC(shift=self.published.shift)

    def sampler_for(self, size: Size) -> Sampler:
        """Return UniPC with the shift that is published for the size: 832 x 480 has another one in some tasks."""
        small = self.published.small_shift
        return self.sampler if small is None or size not in _SMALL_SIZES else self.sampler.replace(shift=small)

    @property
    def generation(self) -> Generation:
        """The authors' defaults."""
        from musubi.noise.per_expert import PerExpert

        published, scale = self.published, self.published.guidance
        return Generation(
            size=published.size,
            frames=published.frames,
            steps=published.steps,
            guidance=PerExpert(high=scale[0], low=scale[1]) if isinstance(scale, tuple) else scale,
            fps=published.geometry.fps,
            negative=published.negative,
        )

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
        sees = self.sight.image or self.sight.control
        return Interchange(layout="comfy", diffusers="WanImageToVideoPipeline" if sees else "WanPipeline")

    def linears(self) -> Mapping[str, tuple[int, int]]:
        """Return (inputs, outputs) of every Linear of the published transformer by original name; imports torch."""
        from musubi.architectures.wan.facts import published_facts
        from musubi.architectures.wan.transformer import empty_transformer
        from musubi.networks.groups import shapes_of

        return shapes_of(empty_transformer(published_facts(self.published)), self.keys)

    def default_weights(self) -> Mapping[str, WeightsRef]:
        """Return where each component is published."""
        files = {
            **self.published.files,
            "vae": self.published.vae,
            **({"clip": CLIP} if self.sight.clip else {}),
            "t5": T5,
            "tokenizer": TOKENIZER,
        }
        return {component: WeightsRef(file) for component, file in files.items()}

    def codec(self) -> WanCodec:
        """Return the VAE and text side; imports torch."""
        from musubi.architectures.wan.codec import WanCodec

        return WanCodec(self)

    def denoiser(self) -> WanDenoiser:
        """Return the transformer side; imports torch."""
        from musubi.architectures.wan.denoiser import WanDenoiser

        return WanDenoiser(self)

    @property
    def _places_pictures(self) -> bool:
        """Whether pictures can be given places in time: their latents come with a mask."""
        sight = sight_of(self.task)
        return sight.image and not sight.control


def _stage(name: str, component: str, *, controls: bool) -> Stage:
    return Stage(name=name, components=(component,), reads=("pixels", "controls") if controls else ("pixels",))
