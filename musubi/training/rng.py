"""The random numbers of a run: its own, wherever they are drawn, and nobody else's."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class RunRandom:
    """Generators seeded once for a run: ``noise`` for what the loop draws, and the global ones for dropout.

    The global generators belong to the caller: their states are swapped in only inside ``swapped_in``.
    """

    def __init__(self, seed: int, *, device: torch.device, rank: int = 0) -> None:
        self.noise = torch.Generator().manual_seed(_mix(seed, rank, 1))
        self._device = device
        dropout_seed = _mix(seed, rank, 2)
        self._cpu = torch.Generator().manual_seed(dropout_seed).get_state()
        self._cuda = torch.Generator(device).manual_seed(dropout_seed).get_state() if device.type == "cuda" else None

    @contextmanager
    def swapped_in(self) -> Generator[None]:
        """Let the global generators continue the run's own sequence inside the block, and the caller's after it."""
        cpu, cuda = torch.get_rng_state(), self._get_cuda()
        torch.set_rng_state(self._cpu)
        self._set_cuda(self._cuda)
        try:
            yield
        finally:
            self._cpu, self._cuda = torch.get_rng_state(), self._get_cuda()
            torch.set_rng_state(cpu)
            self._set_cuda(cuda)

    def state(self) -> dict[str, Tensor]:
        """Return the states of all generators, as copies."""
        states = {"noise": self.noise.get_state().clone(), "cpu": self._cpu.clone()}
        if self._cuda is not None:
            states["cuda"] = self._cuda.clone()
        return states

    def restore(self, states: Mapping[str, Tensor]) -> None:
        """Continue from states that ``state`` returned."""
        self.noise.set_state(states["noise"])
        self._cpu = states["cpu"].clone()
        if self._cuda is not None and "cuda" in states:
            self._cuda = states["cuda"].clone()

    def _get_cuda(self) -> Tensor | None:
        return torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None

    def _set_cuda(self, state: Tensor | None) -> None:
        if state is not None:
            torch.cuda.set_rng_state(state, self._device)


def _mix(seed: int, rank: int, purpose: int) -> int:
    """Spread a seed over ranks and purposes (SplitMix64's finaliser), so that neighbours do not correlate."""
    value = (seed * 0x9E3779B97F4A7C15 + rank * 0xBF58476D1CE4E5B9 + purpose * 0x94D049BB133111EB) & (2**64 - 1)
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (value ^ (value >> 31)) & (2**63 - 1)
