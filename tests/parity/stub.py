"""A denoiser without a network of its own, which notes what it is asked: what recorded sampling loops ran with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import attrs
from torch import Tensor, nn

from musubi.architecture import Denoiser, Expert
from musubi.batch import Batch

Answer = Callable[[Tensor, float, str, bool], Tensor]
"""Makes a velocity of x, the model's time (0..1000), the prompt ("positive", "negative"), and whether blocks lack."""


class Counter(nn.Module):
    """A block that adds one."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1


class Counters(nn.Module):
    """A network that tells by how many of its blocks ran."""

    def __init__(self, count: int = 40) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Counter() for _ in range(count))

    def forward(self, x: Tensor) -> int:
        ran = x.new_zeros(())
        for block in self.blocks:
            ran = cast(Tensor, block(ran))
        return int(ran)


@attrs.frozen(eq=False)
class Stub(Denoiser[str]):
    """Answers by a formula; notes (model, time, prompt, whether blocks lacked) of every question."""

    answer: Answer
    asked: list[tuple[nn.Module, float, str, bool]] = attrs.field(factory=list)

    def velocity(self, model: nn.Module, x: Tensor, sigma: Tensor, cond: str) -> Tensor:
        time, lacking = round(1000 * sigma[0].item(), 4), model(x) < len(cast(Counters, model).blocks)
        self.asked.append((model, time, cond, lacking))
        return self.answer(x, time, cond, lacking)

    def load(self, expert: Expert, **_: Any) -> nn.Module:
        raise NotImplementedError

    def empty(self, expert: Expert) -> nn.Module:
        raise NotImplementedError

    def clean(self, batch: Batch) -> Tensor:
        raise NotImplementedError

    def conditions(self, batch: Batch) -> str:
        raise NotImplementedError


@attrs.frozen(eq=False)
class Network:
    """What the engine takes of a loaded network."""

    model: nn.Module
    adapters: Sequence[nn.Module] = ()
