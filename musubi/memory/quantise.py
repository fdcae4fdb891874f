"""Policies that store frozen weights in fewer bits."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, ClassVar, Literal

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import field, one_of
from musubi.memory.policy import FitContext, MemoryPolicy, Phase, Placement

if TYPE_CHECKING:
    from torch import Tensor, nn

    from musubi.architecture import Layout, WeightHook
    from musubi.keymap import KeyMap
    from musubi.memory.eight_bit import Compute
    from musubi.memory.formats import WeightFormat
    from musubi.memory.sizes import Sizes


@attrs.frozen(kw_only=True)
class Quantise(MemoryPolicy):
    """Keep the matrices that the layout names in another format; quantised one by one while they are loaded."""

    phase: ClassVar[Phase] = Phase.QUANTISE
    changes_weights: ClassVar[bool] = True

    @property
    @abstractmethod
    def format(self) -> WeightFormat:
        """How the matrices are kept; imports torch."""

    @property
    def eight_bit(self) -> Compute | None:
        """In what the products are computed, None for the dtype of the input."""
        return None

    def check(self, context: FitContext) -> Iterable[Issue]:
        name = type(self).__name__
        if not context.layout.quantise:
            yield Issue("", f"{context.title} names no weights that can be quantised", "leave this policy out")
        if context.trains_base:
            hint = "train a LoRA over quantised weights, or FullFineTune(weights='bfloat16')"
            yield Issue("", f"{name} quantises the weights, which then cannot be trained", hint)
        if context.divided:
            yield Issue(
                "",
                f"{name} does not work with a divided model (FSDP)",
                "leave it out: each process keeps only its share of the weights",
            )
        if context.stored is not None:
            hint = "leave this policy out, the file's own 8 bits are kept as they are; or give the bf16 file"
            yield Issue("", f"the file's weights are quantised already ({context.stored})", hint)
        others = [p for p in context.policies if isinstance(p, Quantise) and type(p) is not type(self)]
        if others and context.policies.index(others[0]) < context.policies.index(self):
            yield Issue("", f"{type(others[0]).__name__} quantises the same weights", "keep one of the two")

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Tell whether the format can keep a weight of this shape: any matrix."""
        return len(shape) == 2

    def prepare(self, model: nn.Module, keys: KeyMap, layout: Layout) -> None:
        from torch import nn

        from musubi.memory.quant_linear import QuantLinear

        for name, module in list(model.named_modules()):
            original, _ = keys.to_original(name)
            if type(module) is nn.Linear and quantises(f"{original}.weight", layout) and self.takes(_shape(module)):
                replace(model, name, QuantLinear.of(module, format=self.format, compute=self.eight_bit))

    def weight_hook(self, keys: KeyMap, layout: Layout) -> WeightHook | None:
        format = self.format

        def quantise(name: str, tensor: Tensor) -> Tensor | Mapping[str, Tensor]:
            if not self.takes(tuple(tensor.shape)) or not quantises(name, layout):
                return tensor
            stored, scale = format.quantise(tensor)
            return {"weight": stored} if scale is None else {"weight": stored, "scale": scale}

        return quantise

    def missing(self, placement: Placement) -> Iterable[Issue]:
        """Yield that the device cannot compute in 8 bits where that is wanted."""
        if self.eight_bit is not None:
            from musubi.memory.eight_bit import device_issues

            yield from device_issues(placement.device, self.eight_bit)

    def place(self, model: nn.Module, placement: Placement) -> AbstractContextManager[None]:
        """Ask whether the device can compute this; the weights are quantised already."""
        issues = tuple(self.missing(placement))
        if issues:
            raise ConfigError(type(self).__name__, issues)
        return nullcontext()

    def estimate(self, sizes: Sizes) -> Sizes:
        """Add the one dequantised matrix that exists while it is used; the stored bytes are counted already."""
        return attrs.evolve(sizes, transient=sizes.transient + sizes.largest_matrix)


def _row_mode_needed(mode: str, modes: tuple[str, ...], compute: str) -> Iterable[Issue]:
    if compute != "weights" and mode not in modes:
        message = f"{compute!r} products need a scale for each row of the weight, not {mode!r}"
        yield Issue("compute", message, f"add mode={modes[0]!r}, or leave compute out")


@attrs.frozen(kw_only=True)
class FP8Scaled(Quantise):
    """Store the blocks' weights as float8 (e4m3) with a scale for each 64 inputs: half the bytes of bfloat16.

    The bits are those of the reference's ``--fp8_base --fp8_scaled``. The weights come back to full precision for each
    use, so speed is that of the compute dtype or a little less; the relative error of a weight is near 2.5 %.
    ``Int8Scaled`` takes the same bytes with less error. ``mode`` ``channel`` and ``tensor`` share a scale over a row or
    over the whole weight; with these, ``compute="fp8"`` multiplies in 8 bits, forward and backward, on devices that can
    (compute capability 8.9): that quantises the activations too, with an error near 4 % in a layer's output and in its
    gradient, to which the weights alone contribute 2.7 %.

    Example:
        >>> from musubi import FP8Scaled
        >>> FP8Scaled().to_dict()
        {'kind': 'fp8_scaled', 'mode': 'block', 'compute': 'weights'}
    """

    kind: ClassVar[str] = "fp8_scaled"

    mode: Literal["block", "channel", "tensor"] = field(default="block", check=one_of("block", "channel", "tensor"))
    compute: Literal["weights", "fp8"] = field(default="weights", check=one_of("weights", "fp8"))

    def problems(self) -> Iterable[Issue]:
        """Yield what does not go together."""
        return _row_mode_needed(self.mode, ("channel", "tensor"), self.compute)

    @property
    def format(self) -> WeightFormat:
        """8-bit floats."""
        from musubi.memory.formats import FP8

        return FP8(self.mode)

    @property
    def eight_bit(self) -> Compute | None:
        """``fp8`` if it is asked for."""
        return "fp8" if self.compute == "fp8" else None


@attrs.frozen(kw_only=True)
class Int8Scaled(Quantise):
    """Store the blocks' weights as whole numbers of 8 bits with a scale for each 64 inputs: the recommended format.

    At the bytes of ``FP8Scaled`` the error of a weight is 1.5 to 4 times smaller (0.6 % on normally distributed ones).
    Scales are kept in bfloat16. ``mode="channel"`` shares a scale over a row, which costs accuracy where a row has
    outliers; with it, ``compute="int8"`` multiplies in 8 bits, forward and backward, on CUDA from compute capability
    7.5. The error of a layer's output is then near 1.3 %, and 7 % where single features of its input are 20 times as
    large as the others; that of its gradient 1.2 %.

    Example:
        >>> from musubi import Int8Scaled
        >>> Int8Scaled().to_dict()
        {'kind': 'int8_scaled', 'mode': 'block', 'compute': 'weights'}
    """

    kind: ClassVar[str] = "int8_scaled"

    mode: Literal["block", "channel"] = field(default="block", check=one_of("block", "channel"))
    compute: Literal["weights", "int8"] = field(default="weights", check=one_of("weights", "int8"))

    def problems(self) -> Iterable[Issue]:
        """Yield what does not go together."""
        return _row_mode_needed(self.mode, ("channel",), self.compute)

    @property
    def format(self) -> WeightFormat:
        """8-bit whole numbers."""
        from musubi.memory.formats import Int8

        return Int8(self.mode)

    @property
    def eight_bit(self) -> Compute | None:
        """``int8`` if it is asked for."""
        return "int8" if self.compute == "int8" else None


@attrs.frozen(kw_only=True)
class FP8Cast(Quantise):
    """Store the blocks' weights as float8 (e4m3) as they are, without scales: the reference's plain ``--fp8_base``.

    Weights below 2^-10 become zero. Norms, biases, modulation and embedders keep their precision, other than in the
    reference. Take ``Int8Scaled`` unless you need these very numbers.

    Example:
        >>> from musubi import FP8Cast
        >>> FP8Cast().to_dict()
        {'kind': 'fp8_cast'}
    """

    kind: ClassVar[str] = "fp8_cast"

    @property
    def format(self) -> WeightFormat:
        """8-bit floats without scales."""
        from musubi.memory.formats import Cast

        return Cast()


@attrs.frozen(kw_only=True)
class NF4(Quantise):
    """Store the blocks' weights in 4 bits (QLoRA's normal floats, a scale for each 64): a quarter of bfloat16.

    The relative error of a weight is near 9 %. Matrices whose inputs 64 does not divide stay as they are. Needs
    bitsandbytes, which computes the format.

    Example:
        >>> from musubi import NF4
        >>> NF4().to_dict()
        {'kind': 'nf4'}
    """

    kind: ClassVar[str] = "nf4"

    @property
    def format(self) -> WeightFormat:
        """4-bit normal floats."""
        from musubi.memory import formats

        return formats.NF4()

    def missing(self, placement: Placement) -> Iterable[Issue]:
        from musubi.memory import nf4

        try:
            nf4.library()
        except ConfigError as error:
            yield from error.issues

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Tell whether the format can keep a weight: a matrix with whole blocks of inputs."""
        return len(shape) == 2 and shape[1] % 64 == 0


def quantises(name: str, layout: Layout) -> bool:
    """Tell whether the parameter of this ORIGINAL name is stored in fewer bits: a weight that the layout picks.

    A bias never is. Source: musubi-tuner v0.2.13, ``load_safetensors_with_fp8_optimization``.
    """
    module, dot, leaf = name.rpartition(".")
    if not dot or leaf != "weight":
        return False
    return _matches(module, layout.quantise) and not _matches(module, layout.keep)


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of another."""
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, module)


def _shape(linear: nn.Linear) -> tuple[int, int]:
    return linear.out_features, linear.in_features


def _matches(module: str, patterns: Iterable[str]) -> bool:
    return any(re.fullmatch(pattern, module) for pattern in patterns)
