"""The one sampling loop: pipelines and samples during training draw with it, so equal seeds give equal pictures."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

import attrs
import torch
from torch import Tensor, nn

from musubi.architecture import Denoiser
from musubi.core.control import CancelToken
from musubi.core.errors import MusubiError
from musubi.noise.guidance import Branch, Guidance, Step
from musubi.noise.samplers import OnStep, Sampler

C = TypeVar("C")


class SamplingCancelledError(MusubiError):
    """A generation was stopped on request before its last step; nothing came of it."""


def draw_noise(shape: Sequence[int], seeds: Sequence[int]) -> Tensor:
    """Return float32 noise of shape (seeds, *shape), drawn item by item on the CPU.

    An item's noise depends on its seed alone: not on the device, nor on what else is in the batch.
    """
    return torch.stack([torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def sample_latents(
    denoiser: Denoiser[C],
    model: nn.Module,
    noise: Tensor,
    *,
    positive: C,
    negative: C | None,
    sampler: Sampler,
    guidance: Guidance,
    steps: int,
    tokens: int,
    device: torch.device,
    dtype: torch.dtype,
    adapters: Sequence[nn.Module] = (),
    on_step: OnStep | None = None,
    cancel: CancelToken | None = None,
) -> Tensor:
    """Return the latents (float32, on ``device``) that ``noise`` of shape (batch, ...) becomes.

    The network computes in ``dtype``, the state and the noise levels are float32. ``model`` and ``adapters`` are in
    evaluation mode meanwhile and as before afterwards; global random numbers are neither used nor moved.

    Args:
        denoiser: What knows how to ask the model.
        model: The loaded network.
        noise: Float32, one item for each prompt; ``draw_noise`` makes it.
        positive: Conditions of the prompts, one for each item of ``noise``.
        negative: Conditions of the negative prompts; None where the guidance asks for none.
        sampler: The way from noise to data.
        guidance: Which conditions each step asks for, and how the answers combine.
        steps: How many steps the sampler takes.
        tokens: How many tokens a latent makes: some schedules depend on it.
        device: Where the model computes.
        dtype: What the model computes in.
        adapters: Modules with dropout that are attached to the model without being part of it.
        on_step: Hears after every step how many are done, and the latents.
        cancel: Looked at before every step.

    Raises:
        SamplingCancelledError: ``cancel`` was set.
        MusubiError: The result is not finite.
    """
    sigmas = sampler.sigmas(steps, tokens=tokens)
    ask = _Guided(
        denoiser=denoiser,
        model=model,
        conditions={"positive": positive, "negative": negative},
        guidance=guidance,
        sigmas=sigmas.tolist(),
        dtype=dtype,
        cancel=cancel,
    )
    with torch.inference_mode(), _undisturbed(device), evaluating(model, *adapters):
        latents = sampler.sample(ask, noise.to(device=device, dtype=torch.float32), sigmas, on_step)
    if not bool(torch.isfinite(latents).all()):
        raise MusubiError("sampling gave numbers that are not finite (hint: a LoRA that diverged, or try float32)")
    return latents.clone()


@attrs.define(kw_only=True, eq=False)
class _Guided(Generic[C]):
    """The velocity that a sampler follows: asks the branches of each step and combines the answers."""

    denoiser: Denoiser[C]
    model: nn.Module
    conditions: Mapping[Branch, C | None]
    guidance: Guidance
    sigmas: Sequence[float]
    dtype: torch.dtype
    cancel: CancelToken | None
    index: int = 0

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        step = Step(index=self.index, total=len(self.sigmas) - 1, sigma=self.sigmas[self.index])
        if self.cancel is not None and self.cancel.cancelled:
            raise SamplingCancelledError(f"cancelled after {step.index} of {step.total} steps")
        self.index += 1
        answers: dict[Branch, Tensor] = {branch: self._ask(branch, x, sigma) for branch in self.guidance.branches(step)}
        return self.guidance.combine(step, answers)

    def _ask(self, branch: Branch, x: Tensor, sigma: Tensor) -> Tensor:
        conditions = self.conditions[branch]
        assert conditions is not None, f"the guidance asks for the {branch} branch, which was not given"
        with torch.autocast(x.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.denoiser.velocity(self.model, x, sigma, conditions).float()


@contextmanager
def evaluating(*modules: nn.Module) -> Generator[None]:
    """Switch modules to evaluation for the length of a ``with``, each submodule back to its own mode afterwards."""
    training = [module for root in modules for module in root.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _undisturbed(device: torch.device) -> Generator[None]:
    """Leave the global random numbers of the host and of the device as they are."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield
