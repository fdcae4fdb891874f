"""What a run works with: opened once in the right order, and undone when the run ends."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import attrs
import torch
from torch import nn
from torch.optim import Optimizer

from musubi.architecture import Architecture, Denoiser
from musubi.core import atomic
from musubi.core.control import CancelToken
from musubi.core.errors import ConfigError
from musubi.core.events import Validated
from musubi.inference.denoising import Ready, load_model, merge_of
from musubi.inference.fitting import opened
from musubi.inference.media import Image, Video
from musubi.memory.device import pick_dtype
from musubi.memory.policy import MemoryPolicy, Placement, arrange, check_machine, placed
from musubi.networks.adapters import AdapterSet
from musubi.networks.file import LoRAFile
from musubi.networks.network import AdapterNetwork
from musubi.networks.trained import Trained
from musubi.optim.fused import FusedBackward
from musubi.optim.modes import evaluating
from musubi.training.dealing import Dealer
from musubi.training.ema import Averages
from musubi.training.fitting import fit_context
from musubi.training.full import stored_issues
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
    """The loaded base model with what is trained on it, the data and the engine around them."""

    processes: Processes
    material: Material
    dealer: Dealer
    teaching: Teaching | None
    denoiser: Denoiser[Any]
    model: nn.Module
    trained: Trained
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
        place = device if sharding is None else _HOST
        model = processes.every(partial(_load, trainer, denoiser, policies, device=place, dtype=dtype))
        if sharding is not None:
            sharding.divide(model, trainer.model.layout)
        trained = _network(trainer, model)
        stack.enter_context(trained.attached(model))
        if sharding is None:
            if not trainer.network.trains_base:  # the model's own weights are where they were loaded, for policies
                trained.to(device)
            share_frozen(model, processes, stack)
        stack.enter_context(placed(model, policies, placement))
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
        return "lora" if isinstance(self.trained, AdapterSet) else "model"

    def save(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Write what was trained, with the averages if there are any; of a divided model, all processes take part."""
        leads = self.processes.leads
        with self.best_weights():
            save_trained(self.trained, self.model, path, metadata, self.architecture, leads=leads)

    def saved(self, path: Path) -> LoRAFile | None:
        """Return a file that ``save`` wrote, bound to the model; None if it holds the model itself."""
        if not isinstance(self.trained, AdapterSet):
            return None
        file = LoRAFile.load(path).bind(self.trained.names, keymap=self.architecture.keys)
        return attrs.evolve(file, model=self.architecture)

    def validate(self, step: int, past: Sequence[Validated], *, cancel: CancelToken) -> Validated | None:
        """Measure the held-out items with what is saved; None without any, or if it was cancelled."""
        if self.material.validator is None:
            return None
        with self.best_weights():
            return self.material.validator.measure(
                self.objective, self.model, self.trained, step=step, best=Best.of(past), cancel=cancel
            )

    def draw_samples(self, *, cancel: CancelToken, on_step: Callable[[int, int], None]) -> tuple[Image | Video, ...]:
        """Draw what the trainer asks for with the weights as they are now.

        ``on_step`` hears how many of all sampling steps are done, and how many there are.
        """
        loaded = Ready(denoiser=self.denoiser, model=self.model, adapters=(self.trained,))
        with self.best_weights():
            return self.sampling.draw(
                loaded, device=self.processes.device, dtype=self.dtype, cancel=cancel, on_step=on_step
            )


def _policies(trainer: Trainer[Architecture], denoiser: Denoiser[Any], *, divided: bool) -> tuple[MemoryPolicy, ...]:
    """Return the memory policies in order, once they fit what the checkpoint's header tells.

    Raises:
        ConfigError: They do not.
    """
    expert = trainer.model.experts[0]
    context = opened(fit_context(trainer), denoiser.empty(expert), denoiser.stored(expert))
    issues = tuple(stored_issues(trainer, context.stored))
    if issues:
        raise ConfigError("full fine-tuning", issues)
    return arrange(trainer.memory, attrs.evolve(context, divided=divided))


def _load(
    trainer: Trainer[Architecture],
    denoiser: Denoiser[Any],
    policies: tuple[MemoryPolicy, ...],
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> nn.Module:
    """Load the base model with the trainer's other LoRAs merged into it."""
    merge = merge_of(trainer.model, denoiser, [(use, use.file()) for use in trainer.base_loras])
    kept = trainer.network.weights_dtype(dtype)
    model = load_model(trainer.model, denoiser, policies, device=device, dtype=kept, before=merge)
    merge.check()
    return model


def _network(trainer: Trainer[Architecture], model: nn.Module) -> Trained:
    keys, layout = trainer.model.keys, trainer.model.layout
    if trainer.initial is not None:
        assert isinstance(trainer.network, AdapterNetwork), "the trainer refuses others"
        file = LoRAFile.load(trainer.initial)
        return AdapterSet.continued(file, model, keys=keys, network=trainer.network)
    generator = torch.Generator().manual_seed(trainer.seed)
    return trainer.network.prepare(model, keys=keys, layout=layout, generator=generator)


def _teaching(trainer: Trainer[Architecture], trained: Trained) -> Teaching | None:
    """Return what regularisation pictures are compared with, None for themselves."""
    wanted = trainer.prior is not None and trainer.prior.target == "base"
    return partial(untrained, trained) if wanted else None
