"""What a run works with: opened once in the right order, and undone when the run ends."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import attrs
import torch
from torch import nn
from torch.optim import Optimizer

from musubi.architecture import Architecture, Denoiser, Expert
from musubi.core import atomic
from musubi.core.control import CancelToken
from musubi.core.errors import ConfigError
from musubi.core.events import Validated
from musubi.inference.denoising import load_model, loras_of, merge_of
from musubi.inference.fitting import arranged_for, opened
from musubi.inference.media import Image, Video
from musubi.memory.device import pick_dtype
from musubi.memory.policy import MemoryPolicy, Placement, check_machine
from musubi.memory.together import Use, home, placed_together
from musubi.networks.adapters import AdapterSet
from musubi.networks.file import LoRAFile
from musubi.networks.network import AdapterNetwork, Network
from musubi.networks.trained import Trained
from musubi.optim.fused import FusedBackward
from musubi.optim.modes import evaluating
from musubi.training.dealing import Dealer
from musubi.training.ema import Averages
from musubi.training.expert_adapters import ExpertAdapters
from musubi.training.experts import loaded_experts, network_of, trained_experts, training_of
from musubi.training.fitting import fit_context
from musubi.training.full import stored_issues
from musubi.training.learners import ByLevel, Learner, Learners
from musubi.training.material import Material
from musubi.training.objective import Objective, Teaching
from musubi.training.prior import untrained
from musubi.training.processes import Processes
from musubi.training.rng import RunRandom
from musubi.training.sampling import Sampling
from musubi.training.saving import save_trained
from musubi.training.sharding import Sharding
from musubi.training.sharing import share_frozen
from musubi.training.trainer import Trainer
from musubi.training.validation import Best

_HOST = torch.device("cpu")
"""Where a model is loaded that is then divided, so that no device has to hold all of it."""


@attrs.define(kw_only=True)
class Setup:
    """The loaded base model with what is trained on it, the data and the engine around them.

    With several experts loaded, ``model`` holds all of them by name, and ``trained`` what is trained on each.
    """

    processes: Processes
    material: Material
    dealer: Dealer
    teaching: Teaching | None
    denoiser: Denoiser[Any]
    model: nn.Module
    trained: Trained
    learners: Learners
    optimizer: Optimizer
    fused: FusedBackward | None
    base_rates: tuple[float, ...]
    averages: Averages | None
    objective: Objective
    random: RunRandom
    sampling: Sampling
    architecture: Architecture
    sharding: Sharding | None
    dtype: torch.dtype

    @classmethod
    def open(cls, trainer: Trainer[Architecture], processes: Processes, material: Material, stack: ExitStack) -> Setup:
        """Load and attach everything; what must be undone is pushed onto ``stack``.

        Order: prompts of samples, base weights (prepared and transformed by the memory policies on their way in),
        the network, placement policies, optimiser.
        """
        atomic.check_writable(trainer.output)
        device, dtype = processes.device, pick_dtype(trainer.precision, processes.device)
        sharding = Sharding.of(trainer, processes)
        denoiser = trainer.model.denoiser()
        placement = Placement(
            title=trainer.model.title, layout=trainer.model.layout, device=device, dtype=dtype, training=True
        )
        processes.every(partial(check_machine, trainer.memory, placement))
        policies = processes.every(partial(_policies, trainer, denoiser, divided=sharding is not None))
        sampling = processes.every(partial(Sampling.prepare, trainer, processes, dtype=dtype))
        experts = loaded_experts(trainer)
        place = home(len(experts), policies, device) if sharding is None else _HOST
        models = {
            expert.name: processes.every(
                partial(_load, trainer, denoiser, policies, expert=expert, device=place, dtype=dtype)
            )
            for expert in experts
        }
        model = next(iter(models.values())) if len(models) == 1 else nn.ModuleDict(models)
        if sharding is not None:
            sharding.divide(model, trainer.model.layout)
        trained = _trained(trainer, models)
        stack.enter_context(_attached(trainer, trained, models))
        if sharding is None:
            if not trainer.network.trains_base:  # the model's own weights are where they were loaded, for policies
                trained.to(device)
            share_frozen(model, processes, stack)
        use = stack.enter_context(placed_together(models, policies, placement))
        optimizer = trainer.optimizer.build(trained.groups())
        fused = None
        if trainer.optimizer.fused_backward:
            fused = stack.enter_context(FusedBackward(optimizer, max_grad_norm=trainer.max_grad_norm))
        random = RunRandom(trainer.seed, device=device)
        return cls(
            processes=processes,
            material=material,
            dealer=Dealer(trainer.noise_levels, material.loader, random),
            teaching=_teaching(trainer, trained),
            denoiser=denoiser,
            model=model,
            trained=trained,
            learners=_learners(trainer, trained, models, use),
            optimizer=optimizer,
            fused=fused,
            base_rates=tuple(float(group["lr"] or 0.0) for group in optimizer.param_groups),
            averages=Averages(trainer.ema, trained) if trainer.ema is not None else None,
            objective=Objective(
                denoiser=denoiser,
                geometry=trainer.model.geometry,
                timesteps=trainer.noise_levels,
                weighting=trainer.weighting,
                loss=trainer.loss,
                dtype=dtype,
            ),
            random=random,
            sampling=sampling,
            architecture=trainer.model,
            sharding=sharding,
            dtype=dtype,
        )

    @contextmanager
    def best_weights(self) -> Generator[None]:
        """Let the model compute with what is saved: the averages if there are any, else the weights as they are."""
        with ExitStack() as stack:
            stack.enter_context(evaluating(self.optimizer))
            if self.averages is not None:
                stack.enter_context(self.averages.swapped_in())
            yield

    @property
    def what(self) -> Literal["lora", "model"]:
        """What the run's files hold."""
        return "lora" if isinstance(self.learner().trained, AdapterSet) else "model"

    def save(self, path: Path, metadata: Mapping[str, str], *, expert: Expert | None = None) -> None:
        """Write what was trained, with the averages if there are any; of a divided model, all processes take part.

        ``expert`` is the one whose adapter it is, where each has its own; None is the first that was trained.
        """
        leads, one = self.processes.leads, self.learner(expert)
        assert one.trained is not None, "what is only sampled with is not saved"
        with self.best_weights():
            save_trained(one.trained, one.model, path, metadata, self.architecture, expert=one.expert, leads=leads)

    def learner(self, expert: Expert | None = None) -> Learner:
        """Return an expert that learns; None is the first."""
        return next(one for one in self.learners.trained if expert is None or one.expert == expert)

    def saved(self, path: Path) -> LoRAFile | None:
        """Return a file that ``save`` wrote, bound to the model; None if it holds the model itself."""
        trained = self.learner().trained
        if not isinstance(trained, AdapterSet):
            return None
        file = LoRAFile.load(path).bind(trained.names, keymap=self.architecture.keys)
        return attrs.evolve(file, model=self.architecture)

    def validate(self, step: int, past: Sequence[Validated], *, cancel: CancelToken) -> Validated | None:
        """Measure the held-out items with what is saved; None without any, or if it was cancelled."""
        if self.material.validator is None:
            return None
        with self.best_weights():
            return self.material.validator.measure(
                ByLevel(self.objective, self.learners),
                self.model,
                self.trained,
                step=step,
                best=Best.of(past),
                cancel=cancel,
            )

    def draw_samples(self, *, cancel: CancelToken, on_step: Callable[[int, int], None]) -> tuple[Image | Video, ...]:
        """Draw what the trainer asks for with the weights as they are now.

        ``on_step`` hears how many of all sampling steps are done, and how many there are.
        """
        loaded = self.learners.ready(self.denoiser)
        with self.best_weights():
            return self.sampling.draw(
                loaded, device=self.processes.device, dtype=self.dtype, cancel=cancel, on_step=on_step
            )


def _policies(trainer: Trainer[Architecture], denoiser: Denoiser[Any], *, divided: bool) -> tuple[MemoryPolicy, ...]:
    """Return the memory policies in order, once they fit what the checkpoint's header tells.

    Raises:
        ConfigError: They do not.
    """
    experts, context = loaded_experts(trainer), fit_context(trainer)
    for expert in experts:
        stored = opened(context, denoiser.empty(expert), denoiser.stored(expert)).stored
        issues = tuple(stored_issues(trainer, stored))
        if issues:
            raise ConfigError("full fine-tuning", issues)
    return arranged_for(experts, denoiser, trainer.memory, attrs.evolve(context, divided=divided))


def _load(
    trainer: Trainer[Architecture],
    denoiser: Denoiser[Any],
    policies: tuple[MemoryPolicy, ...],
    *,
    expert: Expert,
    device: torch.device,
    dtype: torch.dtype,
) -> nn.Module:
    """Load an expert's base model with those of the trainer's other LoRAs merged into it that concern it."""
    loras = loras_of(trainer.model, expert, [(use, use.file()) for use in trainer.base_loras])
    merge = merge_of(trainer.model, denoiser, loras, expert)
    kept = trainer.network.weights_dtype(dtype)
    model = load_model(trainer.model, denoiser, policies, device=device, dtype=kept, before=merge, expert=expert)
    merge.check()
    return model


def _trained(trainer: Trainer[Architecture], models: Mapping[str, nn.Module]) -> Trained:
    """Return what is trained: of one expert, on one adapter of all, or together for those that have their own."""
    experts, training = trained_experts(trainer), training_of(trainer)
    if len(experts) == 1 or training.shared_adapter:
        return _network(trainer, network_of(trainer, experts[0]), models[experts[0].name])
    own = {one.name: _network(trainer, network_of(trainer, one), models[one.name]) for one in experts}
    return ExpertAdapters(own, rates=training.rates)


def _network(trainer: Trainer[Architecture], network: Network, model: nn.Module) -> Trained:
    """Return what is trained on a model; each expert begins as it would alone."""
    keys, layout = trainer.model.keys, trainer.model.layout
    if trainer.initial is not None:
        assert isinstance(network, AdapterNetwork), "the trainer refuses others"
        file = LoRAFile.load(trainer.initial)
        return AdapterSet.continued(file, model, keys=keys, network=network)
    generator = torch.Generator().manual_seed(trainer.seed)
    return network.prepare(model, keys=keys, layout=layout, generator=generator)


def _attached(
    trainer: Trainer[Architecture], trained: Trained, models: Mapping[str, nn.Module]
) -> AbstractContextManager[None]:
    """Attach what is trained to the models that it is for."""
    if isinstance(trained, ExpertAdapters):
        return trained.attached(nn.ModuleDict(models))
    own = [models[expert.name] for expert in trained_experts(trainer)]
    return trained.attached(*own) if isinstance(trained, AdapterSet) else trained.attached(own[0])


def _learners(trainer: Trainer[Architecture], trained: Trained, models: Mapping[str, nn.Module], use: Use) -> Learners:
    learning = {expert.name for expert in trained_experts(trainer)}

    def own(name: str) -> Trained | None:
        if name not in learning:
            return None
        return trained.of(name) if isinstance(trained, ExpertAdapters) else trained

    known = [expert for expert in trainer.model.experts if expert.name in models]
    return Learners(
        all=tuple(Learner(expert=one, model=models[one.name], trained=own(one.name)) for one in known), use=use
    )


def _teaching(trainer: Trainer[Architecture], trained: Trained) -> Teaching | None:
    """Return what regularisation pictures are compared with, None for themselves."""
    wanted = trainer.prior is not None and trainer.prior.target == "base"
    return partial(untrained, trained) if wanted else None
