"""The contracts an architecture fulfils: facts (``Architecture``), encoding (``Codec``), denoising (``Denoiser``)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self, TypeVar

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import did_you_mean
from musubi.core.refs import WeightsRef, as_ref
from musubi.core.spec import Spec
from musubi.keymap import KeyMap

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from musubi.batch import Batch, Entry, Sample
    from musubi.noise.guidance import Guidance
    from musubi.noise.samplers import Sampler
    from musubi.noise.timesteps import TimestepSampler

C = TypeVar("C")
Size = tuple[int, int]
"""(width, height) in pixels, in this order everywhere."""

Models = Mapping[str, "nn.Module"]
"""Loaded components by name."""

WeightHook = Callable[[str, "Tensor"], "Tensor | Mapping[str, Tensor]"]
"""Sees every tensor on its way into a model, under its ORIGINAL parameter name, and returns what to store instead.

A mapping stores several tensors in the same module by leaf name, e.g. ``{"weight": fp8, "scale": block_scales}``.
"""


@attrs.frozen(kw_only=True)
class StoredWeight:
    """How a checkpoint keeps a matrix that is quantised already: its type, and the shape of its scales, None without.

    ``dtype`` is torch's name, e.g. ``float8_e4m3fn``; a scale is of shape (), (1,), (rows, 1) or (rows, blocks, 1).
    """

    dtype: str
    scale: tuple[int, ...] | None = None


Prepare = Callable[["nn.Module"], None]
"""Changes a model's structure while it is still on the meta device, e.g. Linear -> QuantLinear."""


@attrs.frozen(kw_only=True)
class Geometry:
    """How pixels, frames and latents relate.

    Sizes are multiples of ``multiple`` pixels; clips have ``frame_step`` * k + 1 frames (a still has one); a latent has
    shape (``channels``, (frames - 1) // ``frame_step`` + 1, height // ``stride``, width // ``stride``), and ``patch``
    latent cells (frames, height, width) make one token.
    """

    multiple: int = 16
    stride: int = 8
    frame_step: int = 4
    channels: int = 16
    patch: tuple[int, int, int] = (1, 2, 2)
    fps: float = 16.0
    video: bool = True

    def latent_shape(self, size: Size, frames: int = 1) -> tuple[int, int, int, int]:
        """Return (channels, frames, height, width) of the latent of a picture or clip."""
        width, height = size
        return self.channels, (frames - 1) // self.frame_step + 1, height // self.stride, width // self.stride

    def tokens(self, latent_shape: Sequence[int]) -> int:
        """Return how many tokens a latent of shape (..., frames, height, width) makes."""
        frames, height, width = latent_shape[-3:]
        return (frames // self.patch[0]) * (height // self.patch[1]) * (width // self.patch[2])

    def size_issues(self, size: Size, path: str = "size") -> list[Issue]:
        """Say what is wrong with a size, naming the nearest legal ones."""
        if all(side >= self.multiple and side % self.multiple == 0 for side in size):
            return []
        low, high = self.nearest(size, up=False), self.nearest(size, up=True)
        return [
            Issue(
                path,
                f"width and height must be multiples of {self.multiple}, got {size[0]}x{size[1]}",
                f"nearest are {low[0]}x{low[1]} and {high[0]}x{high[1]}",
            )
        ]

    def nearest(self, size: Size, *, up: bool) -> Size:
        """Return the next legal size below or above."""
        step = self.multiple
        width, height = (max(step, (side + (step - 1 if up else 0)) // step * step) for side in size)
        return width, height

    def frame_issues(self, frames: int, path: str = "frames") -> list[Issue]:
        """Say what is wrong with a number of frames, naming the nearest legal ones."""
        if not self.video:
            return [] if frames == 1 else [Issue(path, f"this architecture makes single pictures, got {frames} frames")]
        if frames >= 1 and (frames - 1) % self.frame_step == 0:
            return []
        low = max(1, (frames - 1) // self.frame_step * self.frame_step + 1)
        rule = f"{self.frame_step} * k + 1"
        return [Issue(path, f"must be {rule}, got {frames}", f"nearest are {low} and {low + self.frame_step}")]


@attrs.frozen(kw_only=True)
class Stage:
    """A unit of loading and of invalidation: the components it needs and what it reads of a sample.

    ``controls`` are conditioning pictures and clips in their buckets, ``originals`` the pictures as their files have
    them, each of its own size.
    """

    name: str
    components: tuple[str, ...]
    reads: tuple[Literal["pixels", "caption", "controls", "originals", "mask"], ...]


@attrs.frozen(kw_only=True)
class CaptionLengths:
    """How many tokens each of several captions has, and how many the text encoder reads."""

    tokens: tuple[int, ...]
    limit: int


@attrs.frozen(kw_only=True)
class Expert:
    """A denoiser responsible for the noise levels ``low`` <= sigma < ``high`` (1.0 included), from ``component``."""

    name: str = "model"
    component: str = "dit"
    low: float = 0.0
    high: float = 1.0

    def covers(self, sigma: float) -> bool:
        """Tell whether a noise level is this expert's."""
        return self.low <= sigma < self.high or sigma == self.high == 1.0


@attrs.frozen(kw_only=True, eq=False)
class Asked:
    """What a generation is to show or follow, as a codec sees it.

    ``media`` are pictures and clips by role, uint8 RGB of shape (frames, height, width, 3), each of its own size:
    ``image`` (the first frame), ``last`` (the last one), ``control`` (pictures or a clip to follow or change),
    ``video`` (what is changed). ``size`` and ``frames`` are those of the result. ``control_sizes`` are what the request
    says of the sizes at which the pictures of ``control`` are shown, one for each; nothing, where the model's own rule
    decides.
    """

    media: Mapping[str, tuple[Tensor, ...]]
    size: Size
    frames: int
    control_sizes: tuple[Size, ...] = ()


@attrs.frozen(kw_only=True)
class Roles:
    """Which conditions, beside a caption, a sample or a request must and may carry."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Layout:
    """The denoiser's structure as policies and networks see it.

    ``blocks`` are the library's module lists in execution order, ``count`` is how many blocks the published model has
    (None where only the file tells). ``adapters`` (which modules a network adapts) and ``quantise`` (which are
    quantised, minus those that ``keep`` matches) are patterns, full match, on ORIGINAL module names. ``presets`` are
    further sets of adapted modules by name, e.g. ``attention``.
    """

    blocks: tuple[str, ...]
    count: int | None = None
    adapters: tuple[str, ...]
    quantise: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    presets: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Component:
    """A part of the codec as memory policies see it, e.g. a text encoder.

    ``layout`` names the blocks, and what is quantised, of the module that ``Codec.load`` returns (one without blocks is
    left alone), and ``keys`` translate between its modules' names and the file's. ``tables`` are its embeddings: rows
    can be looked up on the host as well. ``tile`` is what the sides of tiles in pixels must be multiples of, None where
    the class cannot work in tiles.
    """

    name: str
    role: Literal["text", "image", "vae", "other"] = "other"
    layout: Layout = Layout(blocks=(), adapters=())
    keys: KeyMap = attrs.field(factory=lambda: KeyMap(()))
    tables: tuple[str, ...] = ()
    tile: int | None = None


LoRALayout = Literal["reference", "comfy", "diffusers", "peft"]
"""How a LoRA file names its tensors; ``musubi.networks.keys`` says how."""


@attrs.frozen(kw_only=True)
class ComfyNames:
    """Which module names ComfyUI takes from a LoRA, beside its own ones after ``lora_unet_`` and ``diffusion_model.``.

    ``own`` are (text, replacement) pairs that turn an original name into ComfyUI's own. Original names are also taken
    after one of ``prefixes``, and with ``library`` those of diffusers after ``transformer.``.
    """

    own: tuple[tuple[str, str], ...] = ()
    prefixes: tuple[str, ...] = ()
    library: bool = False


@attrs.frozen(kw_only=True)
class Interchange:
    """What other programs make of a LoRA of this architecture.

    ``layout`` is the one that most of them take whole. ``diffusers`` names the pipeline class whose ``lora_state_dict``
    reads files, ``comfy`` says whether ComfyUI has this model, ``comfy_names`` what it calls modules. ``swapped`` are
    patterns (full match) of original names whose two halves of rows are the other way round in diffusers' class.
    """

    layout: LoRALayout = "comfy"
    diffusers: str | None = None
    comfy: bool = True
    comfy_names: ComfyNames = ComfyNames()
    swapped: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Generation:
    """What a generation uses where the request says nothing."""

    size: Size
    frames: int
    steps: int
    guidance: float | Guidance
    fps: float
    negative: str = ""


def _refs(values: Mapping[str, WeightsRef | Path | str]) -> Mapping[str, WeightsRef]:
    return {component: as_ref(ref) for component, ref in values.items()}


@attrs.frozen(kw_only=True)
class Architecture(Spec, ABC):
    """A model family at one variant: the user's choices as fields, the facts that follow as properties. Torch-free."""

    family: ClassVar[str] = "architecture"
    name: ClassVar[str]
    """Metadata id, e.g. ``ss_base_model_version``."""

    cache_suffix: ClassVar[str]
    """Short name in cache file names."""

    weights: Mapping[str, WeightsRef] = attrs.field(factory=dict, converter=_refs)

    def problems(self) -> Iterable[Issue]:
        """Yield an issue for every weight of a component that does not exist."""
        known = self.default_weights()
        for component in self.weights:
            if component not in known:
                near = did_you_mean(component, known)
                yield Issue(f"weights.{component}", f"no such component{near}", f"components: {', '.join(known)}")

    def with_weights(self, **weights: WeightsRef | Path | str) -> Self:
        """Return the same variant with some components taken from other files.

        Raises:
            ConfigError: There is no component of that name.
        """
        return self.replace(weights={**self.weights, **weights})

    def weight(self, component: str) -> WeightsRef:
        """Return where a component comes from: the user's file, or the published one."""
        found = self.weights.get(component) or self.default_weights().get(component)
        if found is None:
            raise ConfigError(type(self).__name__, [Issue(f"weights.{component}", "no such component")])
        return found

    @property
    @abstractmethod
    def geometry(self) -> Geometry:
        """Pixel, frame and latent arithmetic."""

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """Blocks and name patterns of the denoiser."""

    @property
    @abstractmethod
    def keys(self) -> KeyMap:
        """Original names of the denoiser's modules <-> the library's."""

    @property
    @abstractmethod
    def stages(self) -> tuple[Stage, ...]:
        """What caching consists of."""

    @property
    def text_stages(self) -> tuple[Stage, ...]:
        """The stages that read captions, and beside them at most the pictures that the words are about."""
        return tuple(stage for stage in self.stages if stage.reads in (("caption",), ("caption", "originals")))

    @property
    def components(self) -> tuple[Component, ...]:
        """What memory policies may know of the codec's components; of those that are not named they leave alone all."""
        return ()

    def component(self, name: str) -> Component:
        """Return the facts of a component of the codec; of one without any, its name."""
        return next((found for found in self.components if found.name == name), Component(name=name))

    @property
    @abstractmethod
    def timesteps(self) -> TimestepSampler:
        """How this variant draws noise levels in training unless told otherwise."""

    @property
    @abstractmethod
    def sampler(self) -> Sampler:
        """How this variant integrates unless told otherwise."""

    def sampler_for(self, size: Size) -> Sampler:
        """Return how a generation of a size integrates unless told otherwise; ``sampler`` unless overridden."""
        return self.sampler

    @property
    @abstractmethod
    def generation(self) -> Generation:
        """What a generation uses where the request says nothing."""

    @property
    def title(self) -> str:
        """What messages call this variant, e.g. ``Wan t2v_14b``."""
        return type(self).__name__

    @property
    def roles(self) -> Roles:
        """Conditions beside the caption; none unless overridden."""
        return Roles()

    @property
    def request_roles(self) -> Roles:
        """Conditions that a generation takes beside its prompt, by role (see ``Asked``); none unless overridden."""
        return Roles()

    @property
    def sizes_controls(self) -> bool:
        """Whether a generation can be shown pictures in other sizes than its own; unless overridden it cannot."""
        return False

    @property
    def request_stages(self) -> tuple[Stage, ...]:
        """What a generation's conditions are made with: ``Codec.ask`` is called with each; none unless overridden."""
        return ()

    @property
    def target_position(self) -> int | None:
        """Where in time, among the ``f_indices`` of ``Codec.ask``, the single picture of a generation lies.

        None, as unless overridden: a generation keeps all frames.
        """
        return None

    def at_positions(self, target: int, controls: tuple[int, ...]) -> Self:
        """Return the same variant, making single pictures at ``target`` in time from control pictures at ``controls``.

        Raises:
            ConfigError: It cannot make such pictures, as one that does not override this.
        """
        message, hint = f"{self.title} has no places in time for single pictures", "leave it out"
        raise ConfigError(type(self).__name__, [Issue("single_frame", message, hint)])

    @property
    def experts(self) -> tuple[Expert, ...]:
        """The denoisers, the one for the highest noise levels first; one for all levels unless overridden."""
        return (Expert(),)

    def expert_at(self, sigma: float) -> Expert:
        """Return the expert of a noise level."""
        return next(expert for expert in self.experts if expert.covers(sigma))

    @property
    def metadata(self) -> Mapping[str, str]:
        """``modelspec.*`` facts that a LoRA of this architecture carries."""
        return {}

    @property
    def marks(self) -> tuple[str, ...]:
        """Names of tensors of one number that no network has, by which programs know a checkpoint of this variant."""
        return ()

    @property
    def interchange(self) -> Interchange:
        """What other programs make of a LoRA of this architecture."""
        return Interchange()

    def linears(self) -> Mapping[str, tuple[int, int]]:
        """Return (inputs, outputs) of every Linear of the published denoiser by ORIGINAL name, in the model's order.

        Nothing is read: it follows from the variant alone. Imports torch.
        """
        return {}

    @abstractmethod
    def default_weights(self) -> Mapping[str, WeightsRef]:
        """Return where each component is published."""

    def codec(self) -> Codec:
        """Return the encoder and decoder; imports torch.

        Raises:
            ConfigError: There is none yet, as in an architecture that does not override this.
        """
        raise self._not_yet("encode or decode")

    def denoiser(self) -> Denoiser[Any]:
        """Return the denoiser; imports torch.

        Raises:
            ConfigError: There is none yet, as in an architecture that does not override this.
        """
        raise self._not_yet("train or generate with")

    def _not_yet(self, work: str) -> ConfigError:
        message = f"this version of musubi cannot {work} {self.title} yet"
        hint = "describing it, scanning data for it and handling its LoRA files work"
        return ConfigError(type(self).__name__, [Issue("", message, hint)])


class Codec(ABC):
    """Turns samples into tensors and latents into pixels."""

    @abstractmethod
    def load(
        self,
        component: str,
        *,
        device: torch.device,
        dtype: torch.dtype,
        prepare: Prepare | None = None,
        on_weight: WeightHook | None = None,
    ) -> nn.Module:
        """Load one component tensor by tensor, frozen and in evaluation mode.

        ``prepare`` sees the module that is returned, still empty. A component whose facts name neither blocks nor what
        is quantised need not know ``prepare`` and ``on_weight``: nobody passes any.
        """

    def stored(self, component: str) -> Mapping[str, StoredWeight]:
        """Return the matrices that a component's file holds quantised, by the ORIGINAL names of their modules.

        Reads headers only. A codec whose files are never quantised need not override this.
        """
        return {}

    @abstractmethod
    def encode(self, stage: Stage, models: Models, samples: Sequence[Sample]) -> list[Entry]:
        """Run one stage over samples of equal pixel shapes, conditions included, and return the entries in their order.

        Samples may be encoded together; an entry then depends on its neighbours by no more than float rounding.
        """

    def ask(self, stage: Stage, models: Models, asked: Asked) -> Mapping[str, Tensor]:
        """Run one of ``request_stages``: return named tensors without a batch dimension, as a cache entry has them.

        Beside what the denoiser's ``conditions`` take, ``latents`` of a ``video`` that is to be changed.
        """
        return {}

    @abstractmethod
    def decode(self, models: Models, latents: Tensor) -> Tensor:
        """Return frames of shape (batch, frames, height, width, 3) as float in [0, 1]."""

    @abstractmethod
    def identity(self, component: str) -> str:
        """Return what tells this component's weights and settings from others, for the cache's fingerprint."""

    def caption_lengths(self, captions: Sequence[str]) -> CaptionLengths | None:
        """Count the tokens of captions with the tokenizer alone; None if this text encoder has no limit."""
        return None


class Denoiser(ABC, Generic[C]):
    """The trained network, reduced to one question: which velocity at this noise level?

    ``C`` is a frozen class of the architecture's conditions.
    """

    float32: ClassVar[tuple[str, ...]] = ()
    """Parameters that stay float32 whatever ``load`` is asked for: patterns (full match) on ORIGINAL names."""

    @abstractmethod
    def load(
        self,
        expert: Expert,
        *,
        device: torch.device,
        dtype: torch.dtype,
        prepare: Prepare | None = None,
        on_weight: WeightHook | None = None,
    ) -> nn.Module:
        """Load an expert's weights tensor by tensor, frozen and in evaluation mode."""

    @abstractmethod
    def empty(self, expert: Expert) -> nn.Module:
        """Return the module on the meta device, of the size the checkpoint's header tells: what ``plan()`` looks at."""

    def stored(self, expert: Expert) -> Mapping[str, StoredWeight]:
        """Return the matrices that the checkpoint holds quantised, by the ORIGINAL names of their modules.

        Reads headers only. An architecture whose files are never quantised need not override this.
        """
        return {}

    def entry(self, model: nn.Module, latent_shape: Sequence[int]) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of what a cache holds for an item of this latent shape, with the longest text there is.

        ``model`` is what ``empty`` returned. ``plan()`` follows a generation with these shapes; without them, an
        architecture's generations are only estimated.
        """
        return {}

    @abstractmethod
    def clean(self, batch: Batch) -> Tensor:
        """Return x0 of a training batch, scaled as the network expects it."""

    @abstractmethod
    def conditions(self, batch: Batch) -> C:
        """Return everything but x and sigma; made once for a batch or a prompt, not for every step."""

    @abstractmethod
    def velocity(self, model: nn.Module, x: Tensor, sigma: Tensor, cond: C) -> Tensor:
        """Return the predicted ``noise - clean`` in the shape of ``x``; ``sigma`` is float32 of shape (batch,)."""

    def complete(self, latents: Tensor, cond: C) -> Tensor:
        """Return a generation's latents with what its conditions fix put in place; as they are unless overridden."""
        return latents
