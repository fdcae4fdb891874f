"""What a run works with: opened once in the right order, and undone when the run ends."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import attrs
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn

from musubi.architecture import Architecture, Denoiser
from musubi.cache.loader import Loader
from musubi.inference.denoising import Ready, load_model
from musubi.inference.media import Image, Video
from musubi.inference.session import pick_dtype
from musubi.memory.policy import FitContext, Placement, arrange, placed
from musubi.networks.adapters import AdapterSet
from musubi.training.objective import Objective
from musubi.training.rng import RunRandom
from musubi.training.sampling import Sampling
from musubi.training.trainer import Trainer


@attrs.define(kw_only=True)
class Setup:
    """The loaded base model with its adapters, the data and the engine around them."""

    accelerator: Accelerator
    loader: Loader
    denoiser: Denoiser[Any]
    model: nn.Module
    adapters: AdapterSet
    optimizer: AcceleratedOptimizer
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
        accelerator = Accelerator(gradient_accumulation_steps=trainer.accumulate, cpu=trainer.device == "cpu")
        device, dtype = accelerator.device, pick_dtype(trainer.precision, accelerator.device)
        loader = trainer.cache.loader(
            seed=trainer.seed, rank=accelerator.process_index, world=accelerator.num_processes
        )
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
            accelerator=accelerator,
            loader=loader,
            denoiser=denoiser,
            model=model,
            adapters=adapters,
            optimizer=accelerator.prepare(optimizer),
            base_rates=tuple(float(group["lr"]) for group in optimizer.param_groups),
            objective=Objective(
                denoiser=denoiser,
                geometry=trainer.model.geometry,
                timesteps=trainer.timesteps or trainer.model.timesteps,
                weighting=trainer.weighting,
                dtype=dtype,
            ),
            random=RunRandom(trainer.seed, device=device, rank=accelerator.process_index),
            sampling=sampling,
            dtype=dtype,
        )

    def draw_samples(self) -> tuple[Image | Video, ...]:
        """Draw what the trainer asks for with the weights as they are now."""
        loaded = Ready(denoiser=self.denoiser, model=self.model, adapters=(self.adapters,))
        return self.sampling.draw(loaded, device=self.accelerator.device, dtype=self.dtype)
