"""What a run works with: opened once in the right order, and undone when the run ends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import attrs
import torch
from torch import nn
from torch.optim import Optimizer

from musubi.architecture import Architecture, Denoiser
from musubi.cache.loader import Loader
from musubi.core import atomic
from musubi.core.control import CancelToken
from musubi.inference.denoising import Ready, load_model
from musubi.inference.media import Image, Video
from musubi.memory.device import pick_dtype
from musubi.memory.policy import FitContext, Placement, arrange, placed
from musubi.networks.adapters import AdapterSet
from musubi.training.objective import Objective
from musubi.training.processes import Processes
from musubi.training.rng import RunRandom
from musubi.training.sampling import Sampling
from musubi.training.trainer import Trainer


@attrs.define(kw_only=True)
class Setup:
    """The loaded base model with its adapters, the data and the engine around them."""

    processes: Processes
    loader: Loader
    denoiser: Denoiser[Any]
    model: nn.Module
    adapters: AdapterSet
    optimizer: Optimizer
    base_rates: tuple[float, ...]
    objective: Objective
    random: RunRandom
    sampling: Sampling
    dtype: torch.dtype

    @classmethod
    def open(cls, trainer: Trainer[Architecture], stack: ExitStack) -> Setup:
        """Load and attach everything; what must be undone is pushed onto ``stack``.

        Order: data, prompts of samples, base weights (prepared and transformed by the memory policies on their way in),
        adapters, placement policies, optimiser.
        """
        atomic.check_writable(trainer.output)
        processes = Processes(trainer.device)
        device, dtype = processes.device, pick_dtype(trainer.precision, processes.device)
        loader = trainer.cache.loader(seed=trainer.seed, rank=processes.rank, world=processes.count)
        sampling = Sampling.prepare(trainer, device=device, dtype=dtype)
        denoiser = trainer.model.denoiser()
        policies = arrange(trainer.memory, FitContext.of(trainer.model, training=True))
        model = load_model(trainer.model, denoiser, policies, device=device, dtype=dtype)
        adapters = AdapterSet.create(
            trainer.network,
            model,
            keys=trainer.model.keys,
            layout=trainer.model.layout,
            generator=torch.Generator().manual_seed(trainer.seed),
        ).to(device)
        stack.enter_context(adapters.attached(model))
        placement = Placement(
            title=trainer.model.title, layout=trainer.model.layout, device=device, dtype=dtype, training=True
        )
        stack.enter_context(placed(model, policies, placement))
        optimizer = trainer.optimizer.build(list(adapters.parameters()))
        return cls(
            processes=processes,
            loader=loader,
            denoiser=denoiser,
            model=model,
            adapters=adapters,
            optimizer=optimizer,
            base_rates=tuple(float(group["lr"]) for group in optimizer.param_groups),
            objective=Objective(
                denoiser=denoiser,
                geometry=trainer.model.geometry,
                timesteps=trainer.timesteps or trainer.model.timesteps,
                weighting=trainer.weighting,
                dtype=dtype,
            ),
            random=RunRandom(trainer.seed, device=device, rank=processes.rank),
            sampling=sampling,
            dtype=dtype,
        )

    def draw_samples(self, *, cancel: CancelToken, on_step: Callable[[int, int], None]) -> tuple[Image | Video, ...]:
        """Draw what the trainer asks for with the weights as they are now.

        ``on_step`` hears how many of all sampling steps are done, and how many there are.
        """
        loaded = Ready(denoiser=self.denoiser, model=self.model, adapters=(self.adapters,))
        return self.sampling.draw(
            loaded, device=self.processes.device, dtype=self.dtype, cancel=cancel, on_step=on_step
        )
