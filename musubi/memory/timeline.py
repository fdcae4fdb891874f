"""What a step or a generation needs on the device from moment to moment, followed on fake tensors."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import attrs
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from musubi.memory.excerpt import Excerpt
from musubi.memory.faking import counted, faked
from musubi.memory.live import LiveBytes, Window

if TYPE_CHECKING:
    from collections.abc import Iterable

Predict = Callable[[nn.Module], Tensor]
"""Makes the inputs of one batch, asks a model, and returns its prediction."""

Gradients = Literal["grow", "whole", "none"]

Attach = Callable[[nn.Module], AbstractContextManager["Iterable[nn.Parameter]"]]
"""Attaches what is trained to a model for the length of a ``with`` and gives its parameters."""


@attrs.frozen(kw_only=True)
class Need:
    """Bytes beside weights at the worst moment, by part, and operations of a pass.

    ``conditions`` are there before the first block and during all of them; ``kept`` waits for backward at the end of
    the forward pass; ``working`` is what the worst moment needs beyond that, e.g. the block that is computed again.
    ``gradients`` are those of what is trained that are there by then, all of them where several passes add them up.
    ``waiting`` lies in host memory. ``forward`` and ``backward`` are operations (16 bit, 8 bit).
    """

    conditions: int
    kept: int
    working: int
    gradients: int = 0
    waiting: int = 0
    forward: tuple[int, int] = (0, 0)
    backward: tuple[int, int] = (0, 0)

    @property
    def total(self) -> int:
        """Bytes on the device at the worst moment."""
        return self.conditions + self.kept + self.working + self.gradients


@attrs.frozen(kw_only=True)
class Timeline:
    """Windows of a pass through an excerpt: before the blocks, each block, after them, and each block's backward.

    ``backward`` is in the order of the blocks; None where a block has none, as before the first adapter.
    """

    head: Window
    forward: tuple[Window, ...]
    tail: Window
    backward: tuple[Window | None, ...]

    def need(
        self,
        source: Sequence[int],
        *,
        offloaded: int = 0,
        least: int = 0,
        gradients: Gradients = "grow",
        whole: int = 0,
    ) -> Need:
        """Return what the whole model needs, ``source`` saying which block of the excerpt stands for each of its own.

        What the first ``offloaded`` blocks keep waits in host memory, where that is more than ``least`` bytes.
        Gradients ``grow`` in backward, are ``whole`` from the start, or ``none`` stays.
        """
        windows = [self.forward[index] for index in source]
        away = [place < offloaded and window.change > least for place, window in enumerate(windows)]
        moments = _Moments(self.head, whole if gradients == "whole" else 0)
        for window, gone in zip(windows, away, strict=True):
            moments.passed(window, change=0 if gone else window.change)
        moments.passed(self.tail, change=self.tail.change)
        kept = max(0, moments.level - self.head.end)
        for index, window, gone in reversed(list(zip(source, windows, away, strict=True))):
            back = self.backward[index]
            if back is not None:
                change = back.change + (window.change if gone else 0)
                moments.passed(back, change=change, gradients=back.gradients if gradients == "grow" else 0)
        return Need(
            conditions=self.head.end,
            kept=kept,
            working=moments.worst - kept - self.head.end,
            gradients=moments.gradients_then,
            waiting=sum(window.change for window, gone in zip(windows, away, strict=True) if gone),
            forward=_operations([self.head, *windows, self.tail]),
            backward=_operations([back for index in source if (back := self.backward[index]) is not None]),
        )


class _Moments:
    """The level from window to window, and the worst moment so far."""

    def __init__(self, head: Window, gradients: int) -> None:
        self.level, self.worst = head.end, max(head.end, head.peak)
        self._gradients = self.gradients_then = gradients

    def passed(self, window: Window, *, change: int, gradients: int = 0) -> None:
        """Go through a window that leaves the level changed, and so many bytes of gradients more."""
        self._look(self.level + window.rise)
        self.level += change
        self._gradients += gradients
        self._look(self.level)

    def _look(self, level: int) -> None:
        if level + self._gradients > self.worst + self.gradients_then:
            self.worst, self.gradients_then = level, self._gradients


def follow(found: Excerpt, predict: Predict, *, attach: Attach | None, like: str) -> Timeline:
    """Run a step, or without ``attach`` a prediction, of an excerpt on fake tensors as on a device of type ``like``.

    Args:
        found: The excerpt, whose parameters are on the meta device or fake already.
        predict: Makes the inputs and returns the prediction.
        attach: What is trained; None for a pass without gradients.
        like: ``cpu``, or the type of an accelerator.
    """
    with faked(found.model, like=like):
        if attach is None:
            given = [*found.model.parameters(), *found.model.buffers()]
            with torch.no_grad(), counted(given, like=like) as live:
                return _passed(found, predict, live)
        with attach(found.model) as trained:
            parameters = list(trained)
            given = [*found.model.parameters(), *found.model.buffers(), *parameters]
            with counted(given, like=like) as live:
                return _stepped(found, predict, live, parameters)


def _passed(found: Excerpt, predict: Predict, live: LiveBytes) -> Timeline:
    with _marked(found.blocks, live) as marks:
        predict(found.model)
        head, *forward = marks.closed()
    return Timeline(head=head, forward=tuple(forward[:-1]), tail=forward[-1], backward=(None,) * len(found.blocks))


def _stepped(found: Excerpt, predict: Predict, live: LiveBytes, trained: Sequence[nn.Parameter]) -> Timeline:
    released = [parameter.register_post_accumulate_grad_hook(live.put_away) for parameter in trained]
    try:
        with _marked(found.blocks, live) as marks:
            torch.autograd.backward([predict(found.model).square().mean()])
            windows = marks.closed()
    finally:
        for handle in released:
            handle.remove()
    count = len(found.blocks)
    head, forward, tail = windows[0], windows[1 : count + 1], windows[count + 1]
    return Timeline(head=head, forward=tuple(forward), tail=tail, backward=marks.backward(windows[count + 2 :]))


class _Marks:
    """Where windows end: before each block, after the last, and where the gradients of a block's output are there."""

    def __init__(self, live: LiveBytes, count: int) -> None:
        self._live, self._count = live, count
        self._windows: list[Window] = []
        self._running: list[int] = []
        self._backward = False

    def before(self, index: int, *_: object) -> None:
        """Begin a block's forward; computed again in backward it begins nothing."""
        if not self._backward:
            self._windows.append(self._live.take())

    def after(self, index: int, _: nn.Module, __: object, output: object) -> None:
        """End the last block's forward, and ask to hear of gradients of any block's output."""
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                tensor.register_hook(partial(self._came, index))
        if index == self._count - 1:
            self._windows.append(self._live.take())

    def _came(self, index: int, _: Tensor) -> None:
        self._backward = True
        if not self._running or self._running[-1] != index:
            self._windows.append(self._live.take())
            self._running.append(index)

    def closed(self) -> list[Window]:
        """Return all windows; the last one ends now."""
        self._windows.append(self._live.take())
        return self._windows

    def backward(self, windows: Sequence[Window]) -> tuple[Window | None, ...]:
        """Return the window of each block's backward."""
        found = dict(zip(self._running, windows, strict=True))
        return tuple(found.get(index) for index in range(self._count))


@contextmanager
def _marked(blocks: Sequence[nn.Module], live: LiveBytes) -> Generator[_Marks]:
    marks = _Marks(live, len(blocks))
    handles: list[Any] = []
    for index, block in enumerate(blocks):
        handles.append(block.register_forward_pre_hook(partial(marks.before, index)))
        handles.append(block.register_forward_hook(partial(marks.after, index)))
    try:
        yield marks
    finally:
        for handle in handles:
            handle.remove()


def _operations(windows: Sequence[Window]) -> tuple[int, int]:
    return sum(window.flops for window in windows), sum(window.eight_bit for window in windows)
