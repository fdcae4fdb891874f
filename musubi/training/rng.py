"""The random numbers of a run: a function of its seed and of which micro-batch it is, and of nothing else."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor

_NOISE, _DROPOUT, _SHARES = 1, 2, 3
_ALL = 2**64 - 1


class RunRandom:
    """Seed what each micro-batch draws: noise and noise levels, and dropout.

    Micro-batches are numbered over the whole run and over all processes together. So neither a resume nor the number of
    processes changes what is drawn, no two micro-batches draw alike, and there is no state to keep. ``attempt`` counts
    how often the run was rolled back: the same micro-batch then draws anew.
    """

    def __init__(self, seed: int, *, device: torch.device) -> None:
        self._seed, self._device = seed, device
        self.attempt = 0

    @contextmanager
    def micro_batch(self, number: int) -> Generator[torch.Generator]:
        """Yield the generator of a micro-batch's noise, on the CPU.

        Meanwhile the global generators are seeded for this micro-batch, too; they are the caller's again afterwards.
        """
        cpu, own = torch.get_rng_state(), _state_of(self._device)
        _seed_globals(self._mixed(number, _DROPOUT), self._device)
        try:
            yield torch.Generator().manual_seed(self._mixed(number, _NOISE))
        finally:
            torch.set_rng_state(cpu)
            _set_state(self._device, own)

    @contextmanager
    def update(self, step: int) -> Generator[None]:
        """Seed the global generators for the optimiser's update of a step, e.g. for stochastic rounding."""
        with self.micro_batch(-1 - step):
            yield

    def shares(self, epoch: int) -> torch.Generator:
        """Return the generator that deals out an epoch's stratified noise levels."""
        return torch.Generator().manual_seed(self._mixed(epoch, _SHARES))

    def _mixed(self, number: int, purpose: int) -> int:
        return mix(self._seed, self.attempt, number, purpose)


def mix(*numbers: int) -> int:
    """Return a seed that depends on every number and their order (SplitMix64's steps), so that neighbours differ."""
    value = 0
    for number in numbers:
        value = (value + number * 0x9E3779B97F4A7C15 + 0x94D049BB133111EB) & _ALL
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _ALL
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _ALL
        value ^= value >> 31
    return value & (2**63 - 1)


def _state_of(device: torch.device) -> Tensor | None:
    """Return the state of an accelerator's global generator; None for the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else None


def _set_state(device: torch.device, state: Tensor | None) -> None:
    if state is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    elif state is not None:
        torch.mps.set_rng_state(state)


def _seed_globals(seed: int, device: torch.device) -> None:
    """Seed the CPU's global generator and this device's; ``torch.manual_seed`` would seed every device's."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
