"""The one sampling loop: pipelines and samples during training draw with it, so equal seeds give equal pictures."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Generic, Protocol, TypeVar

import attrs
import torch
from torch import Tensor, nn

from musubi.architecture import Denoiser, Expert
from musubi.core.control import CancelToken
from musubi.core.errors import ConfigError, MusubiError
from musubi.inference.skipping import Skipping
from musubi.noise.guidance import Branch, Guidance, Step
from musubi.noise.samplers import OnStep, Sampler

C = TypeVar("C")


class SamplingCancelledError(MusubiError):
    """A generation was stopped on request before its last step; nothing came of it."""


class Loaded(Protocol):
    """A network that can be asked, with what is attached to it."""

    @property
    def model(self) -> nn.Module:
        """The network."""
        ...

    @property
    def adapters(self) -> Sequence[nn.Module]:
        """Modules with dropout that are attached to the network without being part of it."""
        ...


Chosen = Callable[[float], Loaded]
"""Returns the network for a noise level, where it can be asked until the next call; asked once a step."""


@attrs.frozen(kw_only=True, eq=False)
class Start:
    """Latents of shape (batch, ...) that are changed: noise takes the place of ``strength`` of them (1.0: of all)."""

    latents: Tensor
    strength: float


def draw_noise(shape: Sequence[int], seeds: Sequence[int]) -> Tensor:
    """Return float32 noise of shape (seeds, *shape), drawn item by item on the CPU, in one draw each as by ComfyUI.

    An item's noise depends on its seed alone: not on the device, nor on what else is in the batch.
    """
    return torch.stack([torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def sample_latents(
    denoiser: Denoiser[C],
    model: nn.Module | Chosen,
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
    experts: Sequence[Expert] = (Expert(),),
    blocks: Sequence[str] = (),
    start: Start | None = None,
    on_step: OnStep | None = None,
    cancel: CancelToken | None = None,
) -> Tensor:
    """Return the latents (float32, on ``device``) that ``noise`` of shape (batch, ...) becomes.

    The network computes in ``dtype``, the state and the noise levels are float32. ``model`` and ``adapters`` are in
    evaluation mode meanwhile and as before afterwards; global random numbers are neither used nor moved.

    Args:
        denoiser: What knows how to ask the model.
        model: The loaded network, or what returns the one for a noise level.
        noise: Float32, one item for each prompt; ``draw_noise`` makes it.
        positive: Conditions of the prompts, one for each item of ``noise``.
        negative: Conditions of the negative prompts; None where the guidance asks for none.
        sampler: The way from noise to data.
        guidance: Which conditions each step asks for, and how the answers combine.
        steps: How many steps the sampler takes from pure noise.
        tokens: How many tokens a latent makes: some schedules depend on it.
        device: Where the model computes.
        dtype: What the model computes in.
        adapters: What is attached to a single ``model``, as in ``Loaded``.
        experts: Who is responsible for which noise levels; the guidance may tell them apart.
        blocks: Names of the model's lists of blocks, in the order of execution, for guidance that passes some by.
        start: What is changed instead of pure noise: only the last ``strength`` of the steps, rounded down, are taken.
        on_step: Hears after every step how many are done, and the latents.
        cancel: Looked at before every step.

    Raises:
        ConfigError: The guidance does not fit the model.
        SamplingCancelledError: ``cancel`` was set.
        MusubiError: The result is not finite, or no step is left to take.
    """
    sigmas = sampler.sigmas(steps, tokens=tokens)[-_taken(steps, start) - 1 :]
    with ExitStack() as stack:
        ask = _Guided(
            denoiser=denoiser,
            chosen=_Single(model, adapters).at if isinstance(model, nn.Module) else model,
            conditions={"positive": positive, "negative": negative},
            guidance=guidance,
            experts=experts,
            blocks=blocks,
            sigmas=sigmas.tolist(),
            told=[_exact(sampler.told(sigma)) for sigma in sigmas.tolist()[:-1]],
            dtype=dtype,
            cancel=cancel,
            stack=stack,
        )
        stack.enter_context(torch.inference_mode())
        stack.enter_context(_undisturbed(device))
        x = _begun(noise.to(device=device, dtype=torch.float32), start, sigmas[0].item())
        latents = denoiser.complete(sampler.sample(ask, x, sigmas, on_step), positive)
    return _finite(latents).clone()


def _finite(latents: Tensor) -> Tensor:
    if not bool(torch.isfinite(latents).all()):
        raise MusubiError("sampling gave numbers that are not finite (hint: a LoRA that diverged, or try float32)")
    return latents


def _taken(steps: int, start: Start | None) -> int:
    taken = steps if start is None else int(steps * start.strength)
    if taken < 1:
        raise MusubiError(f"none of {steps} steps is left to take (hint: more strength, or more steps)")
    return taken


def _exact(sigma: float) -> float:
    """Return a noise level without float32's rounding, which puts 0.9 below the boundary of an expert at 0.9."""
    return round(sigma, 6)


def _begun(noise: Tensor, start: Start | None, sigma: float) -> Tensor:
    """Return where the first noise level finds the latents: all noise, or what is changed with noise in it."""
    if start is None:
        return noise
    return sigma * noise + (1 - sigma) * start.latents.to(noise)


@attrs.frozen(eq=False)
class _Single:
    """The one network of all noise levels."""

    model: nn.Module
    adapters: Sequence[nn.Module]

    def at(self, sigma: float) -> Loaded:
        return self


@attrs.define(kw_only=True, eq=False)
class _Guided(Generic[C]):
    """The velocity that a sampler follows: asks the branches of each step and combines the answers."""

    denoiser: Denoiser[C]
    chosen: Chosen
    conditions: Mapping[str, C | None]
    guidance: Guidance
    experts: Sequence[Expert]
    blocks: Sequence[str]
    sigmas: Sequence[float]
    told: Sequence[float]
    dtype: torch.dtype
    cancel: CancelToken | None
    stack: ExitStack
    skipping: Skipping = attrs.field(factory=Skipping)
    index: int = 0
    asked: nn.Module | None = None

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        step, told = self._step(), self.told[self.index]
        if self.cancel is not None and self.cancel.cancelled:
            raise SamplingCancelledError(f"cancelled after {step.index} of {step.total} steps")
        self.index += 1
        model, branches = self._model(told), self.guidance.branches(step)
        watched = self._blocks(model) if any(branch.without for branch in branches) else ()
        with self.skipping.watching(watched):
            answers = {branch: self._ask(model, branch, x, sigma) for branch in branches}
        return self.guidance.combine(step, answers)

    def _step(self) -> Step:
        expert = next(expert.name for expert in self.experts if expert.covers(self.told[self.index]))
        return Step(index=self.index, total=len(self.told), sigma=self.sigmas[self.index], expert=expert)

    def _model(self, told: float) -> nn.Module:
        """Return the network for a noise level, which from now on is in evaluation."""
        loaded = self.chosen(told)
        if loaded.model is not self.asked:
            self.stack.enter_context(evaluating(loaded.model, *loaded.adapters))
            self.asked = loaded.model
            names, blocks = [expert.name for expert in self.experts], len(self._blocks(loaded.model))
            issues = list(self.guidance.misfits(experts=names, blocks=blocks))
            if issues:
                raise ConfigError("guidance", issues)
        return loaded.model

    def _blocks(self, model: nn.Module) -> tuple[nn.Module, ...]:
        return tuple(block for path in self.blocks for block in model.get_submodule(path).children())

    def _ask(self, model: nn.Module, branch: Branch, x: Tensor, sigma: Tensor) -> Tensor:
        conditions = self.conditions[branch.prompt]
        assert conditions is not None, f"the guidance asks for the {branch.prompt} branch, which was not given"
        self.skipping.without = branch.without
        with torch.autocast(x.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.denoiser.velocity(model, x, sigma, conditions).float()


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
