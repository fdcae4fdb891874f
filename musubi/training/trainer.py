"""The trainer: everything a run needs to know, as one value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, Self

import attrs
from typing_extensions import TypeVar

from musubi.architecture import Architecture
from musubi.cache.cache import Cache
from musubi.core.control import CancelToken
from musubi.core.errors import ConfigError, Issue
from musubi.core.events import Callback
from musubi.core.fields import as_path, at_least, count, field, one_of, optional
from musubi.core.spec import Spec
from musubi.inference.request import Request
from musubi.memory.policy import FitContext, MemoryPolicy, arrange
from musubi.networks.lora import LoRA
from musubi.networks.network import Network
from musubi.noise.timesteps import TimestepSampler
from musubi.noise.weighting import NoWeighting, Weighting
from musubi.optim.optimizers import AdamW, Optimizer
from musubi.optim.schedules import Constant, Schedule

if TYPE_CHECKING:
    from musubi.memory.plan import Plan
    from musubi.training.result import TrainResult
    from musubi.training.run import Run

A_co = TypeVar("A_co", bound=Architecture, covariant=True, default=Architecture)
Precision = Literal["bfloat16", "float32"]


@attrs.frozen(kw_only=True)
class Trainer(Spec, Generic[A_co]):
    """Train a network on a built cache.

    ``steps`` are optimiser updates; each sees ``accumulate`` batches. Files go to ``output``: ``<name>.safetensors`` at
    the end, ``<name>-step00000500.safetensors`` every ``save_every`` steps, and ``...-state`` folders, from which a run
    continues bit for bit, every ``state_every`` steps and at the end. ``precision`` None means bfloat16 on an
    accelerator and float32 on a CPU; ``timesteps`` None means the model's own.

    Example:
        >>> from musubi import LoRA, Wan, WanCache, WanTrainer
        >>> wan = Wan.t2v_14b()
        >>> trainer = WanTrainer(model=wan, cache=WanCache("cache/clips", model=wan), steps=1_600)
        >>> trainer.with_network(LoRA(rank=32, alpha=16)).network.rank
        32
    """

    model: A_co
    cache: Cache[A_co]
    steps: int = field(default=1600, check=count())
    output: Path = attrs.field(default=Path("output"), converter=as_path)
    name: str = attrs.field(default="lora")
    seed: int = field(default=0, check=count(0))
    network: Network = attrs.field(factory=LoRA)
    optimizer: Optimizer = attrs.field(factory=AdamW)
    schedule: Schedule = attrs.field(factory=Constant)
    timesteps: TimestepSampler | None = None
    weighting: Weighting = attrs.field(factory=NoWeighting)
    memory: tuple[MemoryPolicy, ...] = ()
    precision: Precision | None = field(default=None, check=optional(one_of("bfloat16", "float32")))
    device: str | None = None
    accumulate: int = field(default=1, check=count())
    max_grad_norm: float | None = field(default=1.0, check=optional(at_least(0)))
    save_every: int | None = field(default=None, check=optional(count()))
    state_every: int | None = field(default=None, check=optional(count()))
    samples: tuple[Request, ...] = ()
    sample_every: int | None = field(default=None, check=optional(count()))

    def problems(self) -> Iterable[Issue]:
        """Yield what does not fit together."""
        if not re.fullmatch(r"\w([\w .+-]*[\w+-])?", self.name):
            hint = "letters, digits, '_', '-', '+', '.' and blanks between them; folders go into output"
            yield Issue("name", f"must be a plain file name, got {self.name!r}", hint)
        if self.sample_every and not self.samples:
            yield Issue("sample_every", "has nothing to draw", "use with_samples(prompt, every=...)")
        if self.cache.model.name != self.model.name:
            yield Issue("cache.model", f"is {self.cache.model.name}, but the trainer's model is {self.model.name}")
        yield from _issues_of(partial(arrange, self.memory, FitContext.of(self.model, training=True)))
        for i, request in enumerate(self.samples):
            yield from (issue.under(f"samples[{i}]") for issue in _issues_of(partial(request.job, self.model)))

    def with_network(self, network: Network) -> Self:
        """Return a trainer of another network."""
        return self.replace(network=network)

    def with_optimizer(self, optimizer: Optimizer) -> Self:
        """Return a trainer with another optimiser."""
        return self.replace(optimizer=optimizer)

    def with_schedule(self, schedule: Schedule) -> Self:
        """Return a trainer with another learning-rate schedule."""
        return self.replace(schedule=schedule)

    def with_timesteps(self, timesteps: TimestepSampler) -> Self:
        """Return a trainer that draws noise levels in another way."""
        return self.replace(timesteps=timesteps)

    def with_weighting(self, weighting: Weighting) -> Self:
        """Return a trainer that weights the loss by noise level in another way."""
        return self.replace(weighting=weighting)

    def with_memory(self, *policies: MemoryPolicy) -> Self:
        """Return a trainer with these memory policies instead of its present ones."""
        return self.replace(memory=policies)

    def with_checkpoints(self, *, save_every: int | None = None, state_every: int | None = None) -> Self:
        """Return a trainer that writes the LoRA, and its resumable state, every so many steps; None changes nothing."""
        return self.replace(save_every=save_every or self.save_every, state_every=state_every or self.state_every)

    def with_samples(self, *requests: Request | str, every: int | None = None) -> Self:
        """Return a trainer that draws these before the first step, every ``every`` steps and at the end.

        Size and length that a request leaves open are those of the commonest training bucket.
        """
        asked = tuple(Request(r) if isinstance(r, str) else r for r in requests)
        return self.replace(samples=asked, sample_every=every)

    def plan(self) -> Plan:
        """Say what the run would need, from the checkpoint's header and the cache's buckets; loads no weights.

        Raises:
            CacheError: The cache is not built.
            WeightsError: The checkpoint cannot be read or does not fit the model.
        """
        from musubi.training.planning import plan

        return plan(self)

    def start(
        self, *, resume: Path | str | None = None, on: Iterable[Callback] = (), cancel: CancelToken | None = None
    ) -> Run:
        """Return a run: a context manager to iterate over for events.

        ``resume`` is a state folder of an earlier run (``run.state``, ``result.state``), "latest" for the one saved
        last in ``output``, or "auto" for that one if there is one.

        Example:
            >>> with trainer.start() as run:  # doctest: +SKIP
            ...     for event in run:
            ...         print(event)
        """
        from musubi.training.run import Run

        return Run(self, resume=resume, on=on, cancel=cancel)

    def run(
        self,
        *,
        resume: Path | str | None = None,
        on: Iterable[Callback] = (),
        cancel: CancelToken | None = None,
        progress: bool = True,
    ) -> TrainResult:
        """Train to the end with a progress bar and return the result.

        Raises:
            ConfigError: The state to resume from belongs to another configuration.
            CacheError: The cache is not built, or an entry is damaged.
            RunError: A step failed; says where.
        """
        from musubi.training.callbacks import ProgressBar

        with ExitStack() as stack:
            bar = [stack.enter_context(closing(ProgressBar()))] if progress else []
            run = stack.enter_context(self.start(resume=resume, on=[*on, *bar], cancel=cancel))
            for _ in run:
                pass
            return run.result


def _issues_of(attempt: Callable[[], object]) -> tuple[Issue, ...]:
    try:
        attempt()
    except ConfigError as error:
        return error.issues
    return ()
