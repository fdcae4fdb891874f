"""The contract of memory policies, the one order in which they compose, and what applies them together."""

from __future__ import annotations

from abc import ABC
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.spec import Spec

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from musubi.architecture import Architecture, Component, Layout, Prepare, WeightHook
    from musubi.keymap import KeyMap
    from musubi.memory.sizes import Sizes


class Phase(IntEnum):
    """When a policy acts; lower comes first. Adapters are injected after ``QUANTISE``.

    What a later phase puts around a block lies outside what an earlier one put there: the compiled forward is what
    checkpointing computes again, and a swapped block is on the device before its checkpointed forward starts and is
    still there when that forward is computed again.
    """

    QUANTISE = 0
    ATTENTION = 1
    COMPILE = 2
    CHECKPOINT = 3
    ACTIVATIONS = 4
    SWAP = 5


@attrs.frozen(kw_only=True)
class FitContext:
    """What can be known before any weight is loaded.

    ``title`` is how messages call the model; ``blocks`` is how many blocks it has, None where only the checkpoint tells
    (policies then check again when they are placed). ``trains_base`` says that the model's own weights are trained,
    ``fused_backward`` that the optimiser uses up gradients during backward, ``divided`` that every process keeps only
    its part of the weights (FSDP). ``stored`` says in what the file keeps its matrices if they are quantised already,
    e.g. ``float8_e4m3fn``; None if they are not, or if that is not known yet. ``components`` are those of the codec
    that the architecture tells of, None where nobody asked it.
    """

    title: str
    layout: Layout
    blocks: int | None = None
    training: bool = True
    trains_base: bool = False
    fused_backward: bool = False
    divided: bool = False
    stored: str | None = None
    components: tuple[Component, ...] | None = None
    policies: tuple[MemoryPolicy, ...] = ()

    @classmethod
    def of(cls, architecture: Architecture, *, training: bool) -> FitContext:
        """Return what an architecture's facts tell."""
        layout = architecture.layout
        return cls(
            title=architecture.title,
            layout=layout,
            blocks=layout.count,
            training=training,
            components=architecture.components,
        )


@attrs.frozen(kw_only=True)
class Placement:
    """Where a loaded model is to work: device, compute dtype, and whether gradients will be asked for."""

    title: str
    layout: Layout
    device: torch.device
    dtype: torch.dtype
    training: bool = True


@attrs.frozen(kw_only=True)
class MemoryPolicy(Spec, ABC):
    """One way to need less device memory; every method does nothing unless overridden.

    A policy may act at three moments: on the empty model (``prepare``), on each tensor while loading (``weight_hook``),
    and around the use of the loaded model (``place``).
    """

    family: ClassVar[str] = "memory"
    phase: ClassVar[Phase]
    changes_weights: ClassVar[bool] = False
    """Whether the base weights are other numbers with this policy, so that a run cannot go on exactly without it."""
    loads_on_host: ClassVar[bool] = False
    """Whether the model has to be loaded into host memory, because ``place`` decides what goes to the device."""
    for_components: ClassVar[bool] = False
    """Whether it is about components of the codec (``within``), and the denoiser is none of its business."""
    changes_results: ClassVar[bool] = False
    """Whether a component computes other numbers with it although its weights are the same, so that a cache differs."""

    def check(self, context: FitContext) -> Iterable[Issue]:
        """Yield what is wrong with this policy for this model; pure, paths are relative to the policy."""
        return ()

    def missing(self, placement: Placement) -> Iterable[Issue]:
        """Yield what this machine lacks for the policy, a package or a kind of device: asked before anything is loaded.

        Not part of ``check``, because a plan may be made on another machine.
        """
        return ()

    def within(self, component: Component) -> tuple[MemoryPolicy, ...]:
        """Return what this policy asks for in a component of the codec, e.g. a text encoder: nothing by default."""
        return ()

    def choices(self, context: FitContext) -> Iterable[tuple[MemoryPolicy, ...]]:
        """Yield what may stand in this policy's place, cheapest in time first: itself unless it waits for sizes.

        A policy that leaves something open, as ``BlockSwap(blocks="auto")`` does, yields what it may become; the first
        that fits its ``budget`` is taken when a plan is made or a run starts.
        """
        return ((self,),)

    def prepare(self, model: nn.Module, keys: KeyMap, layout: Layout) -> None:
        """Change the structure of a model that is still on the meta device."""

    def weight_hook(self, keys: KeyMap, layout: Layout) -> WeightHook | None:
        """Return what each tensor passes through while loading, or None."""
        return None

    def place(self, model: nn.Module, placement: Placement) -> AbstractContextManager[None]:
        """Apply the policy to a loaded model for the length of a ``with``; the exit undoes it, bit for bit."""
        return nullcontext()

    def estimate(self, sizes: Sizes) -> Sizes:
        """Return what the model needs with this policy, given what it needs with the earlier ones."""
        return sizes


def arrange(policies: Sequence[MemoryPolicy], context: FitContext) -> tuple[MemoryPolicy, ...]:
    """Return the policies in the order in which they apply to the denoiser; those for other components are left out.

    Raises:
        ConfigError: With every problem of every policy under ``memory[i]``, ``i`` counting as the user wrote them.
    """
    full = attrs.evolve(context, policies=tuple(policies))
    issues = [issue.under(f"memory[{index}]") for index, policy in enumerate(policies) for issue in policy.check(full)]
    issues += _repeated(policies)
    if issues:
        raise ConfigError("memory policies do not fit", issues)
    return in_order(policy for policy in policies if not policy.for_components)


def check_machine(policies: Sequence[MemoryPolicy], placement: Placement) -> None:
    """Refuse policies for which something is missing where they are to work.

    Raises:
        ConfigError: With all that is missing, under ``memory[i]``.
    """
    issues = [
        issue.under(f"memory[{index}]") for index, policy in enumerate(policies) for issue in policy.missing(placement)
    ]
    if issues:
        raise ConfigError("memory policies cannot be used on this machine", issues)


def in_order(policies: Iterable[MemoryPolicy]) -> tuple[MemoryPolicy, ...]:
    """Return policies by their phases."""
    return tuple(sorted(policies, key=lambda policy: policy.phase))


def preparation(policies: Sequence[MemoryPolicy], *, keys: KeyMap, layout: Layout) -> Prepare:
    """Return what ``Denoiser.load(prepare=...)`` takes: every policy's ``prepare`` in order."""

    def prepare(model: nn.Module) -> None:
        for policy in policies:
            policy.prepare(model, keys, layout)

    return prepare


def weight_hook(
    policies: Sequence[MemoryPolicy], *, keys: KeyMap, layout: Layout, before: Sequence[WeightHook] = ()
) -> WeightHook | None:
    """Return what ``Denoiser.load(on_weight=...)`` takes: ``before`` (e.g. LoRA merges), then every policy's hook.

    Once a hook has split a tensor into several, later hooks do not see it.
    """
    own = [hook for policy in policies if (hook := policy.weight_hook(keys, layout)) is not None]
    hooks = [*before, *own]
    if not hooks:
        return None

    def chained(name: str, tensor: Tensor) -> Tensor | Mapping[str, Tensor]:
        stored: Tensor | Mapping[str, Tensor] = tensor
        for hook in hooks:
            if isinstance(stored, Mapping):
                break
            stored = hook(name, stored)
        return stored

    return chained


def loading_device(policies: Sequence[MemoryPolicy], device: torch.device) -> torch.device:
    """Return where ``Denoiser.load(device=...)`` puts the weights: on the host if a policy moves them later."""
    import torch

    return torch.device("cpu") if any(policy.loads_on_host for policy in policies) else device


@contextmanager
def placed(model: nn.Module, policies: Sequence[MemoryPolicy], placement: Placement) -> Generator[None]:
    """Place arranged policies in order for the length of a ``with``, and undo them in reverse."""
    with ExitStack() as stack:
        for policy in policies:
            stack.enter_context(policy.place(model, placement))
        yield


def blocks_of(model: nn.Module, layout: Layout) -> tuple[nn.Module, ...]:
    """Return the model's blocks of all lists, in execution order."""
    return tuple(block for path in layout.blocks for block in model.get_submodule(path).children())


def _repeated(policies: Sequence[MemoryPolicy]) -> list[Issue]:
    first: dict[str, int] = {}
    issues: list[Issue] = []
    for index, policy in enumerate(policies):
        known = first.setdefault(policy.kind, index)
        if known != index:
            message = f"a {type(policy).__name__} is there already as memory[{known}]"
            issues.append(Issue(f"memory[{index}]", message, "keep one of the two"))
    return issues
