"""The trainer: everything a run needs to know, as one value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self

import attrs
from typing_extensions import TypeVar

from musubi.architecture import Architecture
from musubi.cache.cache import Cache
from musubi.core.control import CancelToken
from musubi.core.errors import ConfigError, Issue
from musubi.core.events import Callback
from musubi.core.fields import as_path, at_least, count, field, one_of, optional
from musubi.core.spec import Spec
from musubi.inference.loras import LoRAUse
from musubi.inference.prompt_file import read_prompts
from musubi.inference.request import Request
from musubi.memory.policy import MemoryPolicy, arrange
from musubi.networks.lora import LoRA
from musubi.networks.network import Network
from musubi.noise.loss import MSE, Loss
from musubi.noise.timesteps import TimestepSampler
from musubi.noise.weighting import NoWeighting, Weighting
from musubi.optim.optimizers import AdamW, Optimizer
from musubi.optim.own_schedule import schedule_issue
from musubi.optim.schedules import Constant, Schedule
from musubi.training.about import About
from musubi.training.ema import EMA
from musubi.training.experts import BOTH, ExpertTraining, expert_issues, levels_of
from musubi.training.files import name_issue
from musubi.training.fitting import fit_context
from musubi.training.full import full_issues, stored_issues
from musubi.training.prior import PriorPreservation
from musubi.training.validation import Validation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from musubi.memory.hardware import Hardware
    from musubi.memory.plan import Plan
    from musubi.networks.file import LoRAFile
    from musubi.training.result import TrainResult
    from musubi.training.run import Run

A_co = TypeVar("A_co", bound=Architecture, covariant=True, default=Architecture)
Precision = Literal["bfloat16", "float32"]
OnNonFinite = Literal["raise", "skip", "roll_back"]


@attrs.frozen(kw_only=True)
class Trainer(Spec, Generic[A_co]):
    """Train a network on a built cache.

    ``steps`` are optimiser updates, 1600 unless ``epochs`` says how often to see everything; each sees ``accumulate``
    batches on every process. Files go to ``output`` under ``name``, see ``with_checkpoints``. ``precision`` None means
    bfloat16 on an accelerator and float32 on a CPU; ``timesteps`` None means the model's own. ``on_nonfinite`` says
    what happens when a loss or a gradient is not a finite number: ``raise`` an error, ``skip`` the update, or
    ``roll_back`` to the last state that was kept, and go on from there with other noise.

    Example:
        >>> from musubi import LoRA, Wan, WanCache, WanTrainer
        >>> wan = Wan.t2v_14b()
        >>> trainer = WanTrainer(model=wan, cache=WanCache("cache/clips", model=wan), steps=1_600)
        >>> trainer.with_network(LoRA(rank=32, alpha=16)).network.rank
        32
    """

    usual_steps: ClassVar[int] = 1600

    model: A_co
    cache: Cache[A_co]
    steps: int | None = field(default=None, check=optional(count()))
    epochs: int | None = field(default=None, check=optional(count()))
    output: Path = attrs.field(default=Path("output"), converter=as_path)
    name: str = attrs.field(default="lora")
    about: About | None = None
    seed: int = field(default=0, check=count(0))
    network: Network = attrs.field(factory=LoRA)
    experts: ExpertTraining | None = None
    initial: Path | None = attrs.field(default=None, converter=attrs.converters.optional(as_path))
    base_loras: tuple[LoRAUse, ...] = ()
    optimizer: Optimizer = attrs.field(factory=AdamW)
    schedule: Schedule = attrs.field(factory=Constant)
    timesteps: TimestepSampler | None = None
    weighting: Weighting = attrs.field(factory=NoWeighting)
    loss: Loss = attrs.field(factory=MSE)
    prior: PriorPreservation | None = None
    ema: EMA | None = None
    validation: Validation | None = None
    memory: tuple[MemoryPolicy, ...] = ()
    precision: Precision | None = field(default=None, check=optional(one_of("bfloat16", "float32")))
    device: str | None = None
    accumulate: int = field(default=1, check=count())
    max_grad_norm: float | None = field(default=1.0, check=optional(at_least(0)))
    on_nonfinite: OnNonFinite = field(default="raise", check=one_of("raise", "skip", "roll_back"))
    save_every: int | None = field(default=None, check=optional(count()))
    save_every_epochs: int | None = field(default=None, check=optional(count()))
    state_every: int | None = field(default=None, check=optional(count()))
    state_every_epochs: int | None = field(default=None, check=optional(count()))
    keep_last: int | None = field(default=None, check=optional(count()))
    keep_last_states: int | None = field(default=None, check=optional(count()))
    samples: tuple[Request, ...] = ()
    sample_every: int | None = field(default=None, check=optional(count()))
    sample_every_epochs: int | None = field(default=None, check=optional(count()))

    def problems(self) -> Iterable[Issue]:
        """Yield what does not fit together."""
        if not re.fullmatch(r"\w([\w .+-]*[\w+-])?", self.name):
            hint = "letters, digits, '_', '-', '+', '.' and blanks between them; folders go into output"
            yield Issue("name", f"must be a plain file name, got {self.name!r}", hint)
        taken = name_issue(self.name)
        if taken is not None:
            yield taken
        if self.steps is not None and self.epochs is not None:
            yield Issue("epochs", f"is {self.epochs}, but steps says {self.steps}", "give one of the two")
        yield from expert_issues(self)
        yield from self._sample_issues()
        yield from self._model_issues()
        yield from self._optimizer_issues()
        context = fit_context(self)
        yield from full_issues(self)
        yield from stored_issues(self, context.stored)
        yield from _issues_of(partial(arrange, self.memory, context))

    def _sample_issues(self) -> Iterable[Issue]:
        for name in ("sample_every", "sample_every_epochs"):
            if getattr(self, name) and not self.samples:
                yield Issue(name, "has nothing to draw", "use with_samples(prompt, every=...)")
        for i, request in enumerate(self.samples):
            yield from (issue.under(f"samples[{i}]") for issue in _issues_of(partial(request.job, self.model)))

    def _model_issues(self) -> Iterable[Issue]:
        for i, use in enumerate(self.base_loras):
            yield from (issue.under(f"base_loras[{i}]") for issue in use.expert_issues(self.model.experts))
        caches = {"cache.model": self.cache} | ({"prior.cache.model": self.prior.cache} if self.prior else {})
        for path, cache in caches.items():
            if cache.model.name != self.model.name:
                yield Issue(path, f"is {cache.model.name}, but the trainer's model is {self.model.name}")

    def _optimizer_issues(self) -> Iterable[Issue]:
        issue = schedule_issue(self.optimizer, self.schedule)
        if issue is not None:
            yield issue
        if self.optimizer.fused_backward and self.accumulate > 1:
            hint = "larger batches instead, or an optimiser that is not fused into backward"
            yield Issue("accumulate", "gradients are used and freed during backward, nothing can add up", hint)
        if self.optimizer.fused_backward and self.prior is not None:
            yield Issue("prior", "its gradients cannot join the others', which are used and freed during backward")
        if self.optimizer.fused_backward and self.on_nonfinite != "raise":
            yield Issue("on_nonfinite", "must be 'raise': weights have moved before the whole gradient is known")

    @property
    def noise_levels(self) -> TimestepSampler:
        """How noise levels are drawn: the trainer's own way, or the model's; of one expert alone, its part of them."""
        return levels_of(self)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values.

        Raises:
            ConfigError: A base LoRA, or a picture that a sample shows, lies in memory only.
        """
        for kept in (*self.base_loras, *self.samples):
            kept.to_dict()
        return super().to_dict()

    def with_network(self, network: Network) -> Self:
        """Return a trainer of another network."""
        return self.replace(network=network)

    def with_experts(
        self,
        train: str = BOTH,
        *,
        networks: Mapping[str, Network] | None = None,
        rates: Mapping[str, float] | None = None,
        shared_adapter: bool = False,
    ) -> Self:
        """Return a trainer of both experts of a model, or of one of them; see ``ExpertTraining``."""
        experts = ExpertTraining(train=train, networks=networks or {}, rates=rates or {}, shared_adapter=shared_adapter)
        return self.replace(experts=experts)

    def with_initial(self, path: Path | str) -> Self:
        """Return a trainer that goes on from the weights of a LoRA file, in its modules and ranks."""
        return self.replace(initial=path)

    def with_base_lora(self, lora: LoRAFile | Path | str, *, weight: float = 1.0, expert: str | None = None) -> Self:
        """Return a trainer that merges one more LoRA into the base model, or one expert, before training starts."""
        use = LoRAUse.of(lora, weight=weight, merge=True, expert=expert)
        return self.replace(base_loras=(*self.base_loras, use))

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

    def with_loss(self, loss: Loss) -> Self:
        """Return a trainer that measures errors in another way."""
        return self.replace(loss=loss)

    def with_prior(self, prior: PriorPreservation) -> Self:
        """Return a trainer that learns from regularisation pictures beside its own."""
        return self.replace(prior=prior)

    def with_ema(self, ema: EMA) -> Self:
        """Return a trainer that saves, validates and samples with a running average of the weights."""
        return self.replace(ema=ema)

    def with_validation(self, validation: Validation) -> Self:
        """Return a trainer that measures the loss on held-out items and keeps the best LoRA."""
        return self.replace(validation=validation)

    def with_memory(self, *policies: MemoryPolicy) -> Self:
        """Return a trainer with these memory policies instead of its present ones."""
        return self.replace(memory=policies)

    def with_about(self, about: About) -> Self:
        """Return a trainer whose LoRA says this about itself."""
        return self.replace(about=about)

    def with_checkpoints(
        self,
        *,
        save_every: int | None = None,
        save_every_epochs: int | None = None,
        state_every: int | None = None,
        state_every_epochs: int | None = None,
        keep_last: int | None = None,
        keep_last_states: int | None = None,
    ) -> Self:
        """Return a trainer that writes the LoRA, and its resumable state, every so many steps or epochs.

        The finished LoRA is ``<name>.safetensors``; those on the way are ``<name>-step00000500.safetensors`` and
        ``<name>-000002.safetensors``, and states are folders of the same names with ``-state``. The newest
        ``keep_last`` of each kind stay, of states the newest ``keep_last_states`` (None: as many as of LoRAs). What is
        not given stays as it is.
        """
        given = {
            "save_every": save_every,
            "save_every_epochs": save_every_epochs,
            "state_every": state_every,
            "state_every_epochs": state_every_epochs,
            "keep_last": keep_last,
            "keep_last_states": keep_last_states,
        }
        return self.replace(**{name: value for name, value in given.items() if value is not None})

    def with_samples(
        self, *requests: Request | Path | str, every: int | None = None, every_epochs: int | None = None
    ) -> Self:
        """Return a trainer that draws these before the first step, every so many steps or epochs, and at the end.

        A string is a prompt, a ``Path`` a file of prompts (``read_prompts``). Size and length that a request leaves
        open are those of the commonest training bucket.
        """
        asked = tuple(request for given in requests for request in _requests(given))
        return self.replace(samples=asked, sample_every=every, sample_every_epochs=every_epochs)

    def plan(self, *, hardware: Hardware | str | None = None) -> Plan:
        """Say what the run would need, from the checkpoint's header and the cache's buckets; loads no weights.

        ``hardware`` is what to plan for: a card by name, ``"RTX 4090"``, or a ``Hardware``; None is this machine's GPU,
        if it has one, with the memory that is free.

        Raises:
            ConfigError: There is no such hardware, the policies do not fit, or nothing fits a budget.
            CacheError: The cache is not built.
            WeightsError: The checkpoint cannot be read or does not fit the model.
        """
        from musubi.training.planning import plan

        return plan(self, hardware=hardware)

    def plot_timesteps(self) -> Figure:
        """Draw how often each noise level comes for every bucket of the cache, and how much it counts.

        Raises:
            ConfigError: matplotlib is not installed.
            CacheError: The cache is not built.
        """
        from musubi.noise.histogram import timestep_figure

        geometry = self.model.geometry
        items = {cached.item.bucket_label: cached.item for cached in self.cache.manifest().items}
        tokens = {
            label: geometry.tokens(geometry.latent_shape(item.bucket, item.window.count))
            for label, item in sorted(items.items())
        }
        return timestep_figure(self.noise_levels, self.weighting, tokens=tokens)

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

        Ctrl-C and SIGTERM finish the step under way, save everything and return a result of reason "cancelled"; a
        second Ctrl-C stops at once.

        Raises:
            ConfigError: The state to resume from belongs to another configuration.
            CacheError: The cache is not built, or an entry is damaged.
            RunError: A step failed; says where.
        """
        from musubi.training.progress import ProgressBar
        from musubi.training.signals import finishing_on_signals

        token = cancel or CancelToken()
        with ExitStack() as stack:
            stack.enter_context(finishing_on_signals(token, echo_s=1.0))
            bar = [stack.enter_context(closing(ProgressBar()))] if progress else []
            run = stack.enter_context(self.start(resume=resume, on=[*on, *bar], cancel=token))
            for _ in run:
                pass
            return run.result


def _requests(given: Request | Path | str) -> tuple[Request, ...]:
    if isinstance(given, Path):
        return read_prompts(given)
    return (Request(given) if isinstance(given, str) else given,)


def _issues_of(attempt: Callable[[], object]) -> tuple[Issue, ...]:
    try:
        attempt()
    except ConfigError as error:
        return error.issues
    return ()
