"""What a model needs with any set of policies: prepared once for each way to keep weights, followed once a bucket."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any

import attrs

from musubi.memory.as_stored import AsStored
from musubi.memory.hardware import Hardware
from musubi.memory.need import Row, row_of
from musubi.memory.policy import FitContext, MemoryPolicy, Phase, Placement, arrange, preparation
from musubi.memory.quantise import Quantise
from musubi.memory.sizes import Sizes, measure

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch
    from torch import Tensor, nn

    from musubi.architecture import StoredWeight
    from musubi.keymap import KeyMap
    from musubi.memory.timeline import Gradients, Need

logger = logging.getLogger(__name__)


@attrs.frozen(kw_only=True, eq=False)
class Bucket:
    """A batch to plan for.

    Args:
        name: What the plan calls it.
        tokens: Tokens of the whole batch.
        predict: Makes the batch's inputs, asks a model and returns its prediction; runs on fake tensors. None where
            nobody knows the inputs: then activations are estimated from the sizes of the model's Linears.
    """

    name: str
    tokens: int
    predict: Callable[[nn.Module], Tensor] | None = None


@attrs.frozen(kw_only=True, eq=False)
class Subject:
    """A model to plan for, on the meta device, and how it is used.

    Args:
        model: Is left as it is.
        keys: Its original names.
        context: What policies may look at.
        dtype: What it computes in.
        buckets: The batches.
        float32: Patterns on ORIGINAL names of parameters that stay float32.
        stored: What its file holds quantised already, by original module.
        attach: Attaches what is trained to a model of fake tensors and gives its parameters.
        trained: Bytes of what is trained, on the device beside the model's weights, without gradients.
        gradients: Bytes of the gradients once they are all there; 0 where each is used up at once.
        passes: How often a step does all this before it updates, or a generation does it.
        adds_up: Whether a pass begins with the gradients of an earlier one.
        accelerated: Whether it is planned for an accelerator, or for a CPU.
    """

    model: nn.Module
    keys: KeyMap
    context: FitContext
    dtype: torch.dtype
    buckets: tuple[Bucket, ...]
    float32: tuple[str, ...] = ()
    stored: Mapping[str, StoredWeight] = attrs.field(factory=dict)
    attach: Callable[[nn.Module], AbstractContextManager[Iterable[nn.Parameter]]] | None = None
    trained: int = 0
    gradients: int = 0
    passes: int = 1
    adds_up: bool = False
    accelerated: bool = True


_Key = tuple[MemoryPolicy, ...]


class Forecast:
    """Tell what a subject needs with any policies; what was found for some serves others that differ little.

    ``estimated`` says whether activations had to be estimated for want of a pass that could be followed.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.estimated = False
        self._sizes: dict[_Key, Sizes] = {}
        self._needs: dict[tuple[_Key, int], Callable[[Sizes], Need]] = {}

    def sizes(self, policies: Sequence[MemoryPolicy]) -> Sizes:
        """Return what the model takes.

        Raises:
            ConfigError: The policies do not fit the model or one another.
        """
        ordered = arrange(policies, self.subject.context)
        key = _of(ordered, Phase.QUANTISE)
        if key not in self._sizes:
            model = self._prepared(key)
            self._sizes[key] = measure(model, self.subject.context.layout, dtype=self.subject.dtype)
        sizes = self._sizes[key]
        for policy in ordered:
            sizes = policy.estimate(sizes)
        return sizes

    def rows(self, policies: Sequence[MemoryPolicy], hardware: Hardware | None = None) -> tuple[Row, ...]:
        """Return what every bucket needs; raises as ``sizes`` does."""
        sizes, subject = self.sizes(policies), self.subject
        key = _of(arrange(policies, subject.context), Phase.QUANTISE, Phase.CHECKPOINT)
        self._follow(key, sizes)
        in_fp8 = any(isinstance(policy, Quantise) and policy.eight_bit == "fp8" for policy in key)
        return tuple(
            row_of(
                bucket.name,
                tokens=bucket.tokens,
                sizes=sizes,
                need=self._needs[key, index](sizes),
                trained=subject.trained,
                gradients=subject.gradients,
                accelerated=subject.accelerated,
                hardware=hardware,
                passes=subject.passes,
                compute="fp8" if in_fp8 else "int8",
            )
            for index, bucket in enumerate(subject.buckets)
        )

    def peak(self, policies: Sequence[MemoryPolicy]) -> int:
        """Return the bytes of the bucket that needs most; raises as ``sizes`` does."""
        return max((row.total for row in self.rows(policies)), default=self.sizes(policies).weights)

    def _prepared(self, policies: Sequence[MemoryPolicy]) -> nn.Module:
        """Return a copy of the model as policies and its file change its structure."""
        from musubi.memory.excerpt import settle

        subject = self.subject
        model = copy.deepcopy(subject.model)
        kept = (AsStored(stored=subject.stored),) if subject.stored else ()
        preparation((*kept, *policies), keys=subject.keys, layout=subject.context.layout)(model)
        settle(model, keys=subject.keys, dtype=subject.dtype, float32=subject.float32)
        return model

    def _follow(self, key: _Key, sizes: Sizes) -> None:
        """Follow a pass of every bucket on one excerpt of the model."""
        missing = [i for i in range(len(self.subject.buckets)) if (key, i) not in self._needs]
        if not missing:
            return
        with ExitStack() as stack:
            found = stack.enter_context(self._excerpt(key)) if sizes.blocks else None
            for index in missing:
                self._needs[key, index] = self._need(found, self.subject.buckets[index])

    def _excerpt(self, key: _Key) -> AbstractContextManager[Any]:
        import torch

        from musubi.memory.excerpt import excerpt
        from musubi.memory.faking import as_on

        subject, context = self.subject, self.subject.context
        quantising = [policy for policy in key if policy.phase is Phase.QUANTISE]
        placement = Placement(
            title=context.title,
            layout=context.layout,
            device=torch.device("cpu"),
            dtype=subject.dtype,
            training=context.training,
        )
        return excerpt(
            self._prepared(quantising),
            layout=context.layout,
            policies=key,
            placement=placement,
            inner=as_on(self._like),
        )

    def _need(self, found: Any, bucket: Bucket) -> Callable[[Sizes], Need]:
        from musubi.memory.timeline import follow

        training = self.subject.context.training
        if found is not None and bucket.predict is not None:
            attach = self.subject.attach if training else None
            try:
                timeline = follow(found, bucket.predict, attach=attach, like=self._like)
            except (RuntimeError, NotImplementedError) as error:
                logger.warning("activations of %s are estimated: %s", bucket.name, str(error).partition("\n")[0])
            else:
                return lambda sizes: timeline.need(
                    found.source,
                    offloaded=sizes.offloaded,
                    least=sizes.offloaded_above,
                    gradients=self._gradients,
                    whole=self.subject.gradients,
                )
        self.estimated = True
        gradients = self.subject.gradients
        return lambda sizes: attrs.evolve(_estimate(sizes, bucket.tokens, training=training), gradients=gradients)

    @property
    def _gradients(self) -> Gradients:
        """How gradients come up: not at all, all there from the second pass of a step on, or one by one."""
        if not self.subject.gradients:
            return "none"
        return "whole" if self.subject.adds_up else "grow"

    @property
    def _like(self) -> str:
        return "cuda" if self.subject.accelerated else "cpu"


def _estimate(sizes: Sizes, tokens: int, *, training: bool) -> Need:
    from musubi.memory.timeline import Need

    total = sizes.activations(tokens, training=training)
    boundary = max((block.boundary for block in sizes.blocks), default=0)
    waiting = tokens * boundary * sizes.offloaded if training else 0
    working = total - sizes.transient if not training else 0
    kept = max(0, total - sizes.transient - working - waiting)
    return Need(conditions=0, kept=kept, working=working + sizes.transient, waiting=waiting)


def _of(policies: Sequence[MemoryPolicy], *phases: Phase) -> _Key:
    return tuple(policy for policy in policies if policy.phase in phases)
