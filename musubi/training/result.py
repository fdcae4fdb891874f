"""What a run leaves behind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from musubi.core.errors import ConfigError, Issue, shown
from musubi.core.events import Reason, Validated
from musubi.core.notebook import card
from musubi.networks.file import LoRAFile

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@attrs.frozen(kw_only=True)
class TrainResult:
    """A finished run: the trained weights, where they were written, and how it went.

    Args:
        lora: The trained network, of several experts' the first; None where the model itself was trained.
        path: The file that was written at the end, of several experts' the first.
        experts: The file of each expert, where each has its own.
        state: The folder to resume from.
        steps: Optimiser steps taken, those before a resume too.
        reason: Why the run ended.
        losses: One number for each step since the very first, resumed or not.
        rates: The learning rate of each step.
        seconds: How long this session took.
        samples: The pictures and clips of this session.
        validations: Every measurement on held-out items.
        best: The file of the best measurement; None without validation.
        zero_effect: Whether the trained weights change nothing, e.g. because the learning rate was 0.

    Example:
        >>> result = trainer.run()  # doctest: +SKIP
        >>> result.lora.save("clay_style.safetensors")  # doctest: +SKIP
        >>> result.plot_loss()  # doctest: +SKIP
    """

    _lora: LoRAFile | None = attrs.field(alias="lora", repr=False)
    path: Path
    state: Path
    steps: int
    reason: Reason
    losses: tuple[float, ...] = attrs.field(repr=False)
    rates: tuple[float, ...] = attrs.field(repr=False)
    seconds: float
    samples: tuple[Path, ...] = attrs.field(default=(), repr=False)
    validations: tuple[Validated, ...] = attrs.field(default=(), repr=False)
    best: Path | None = None
    zero_effect: bool = False
    experts: Mapping[str, Path] = attrs.field(factory=dict)

    @property
    def loras(self) -> tuple[LoRAFile, ...]:
        """The trained networks, one for each expert that has its own; each says which that is.

        Raises:
            ConfigError: The model itself was trained.
            WeightsError: A file is no longer there.
        """
        first = self.lora
        rest = tuple(self.experts.values())[1:]
        return (first, *(attrs.evolve(LoRAFile.load(path), model=first.model) for path in rest))

    @property
    def lora(self) -> LoRAFile:
        """The trained network; of several experts' the first, see ``loras``.

        Raises:
            ConfigError: The model itself was trained; its weights are in the file.
        """
        if self._lora is None:
            issue = Issue(
                "lora", "there is none: the model itself was trained", f"its weights are in {shown(self.path)}"
            )
            raise ConfigError("result", [issue])
        return self._lora

    @property
    def best_validation(self) -> Validated | None:
        """The lowest loss on held-out items, the earliest of equals; None if none was measured."""
        finite = [one for one in self.validations if math.isfinite(one.loss)]
        return min(finite, key=lambda one: (one.loss, one.step), default=None)

    def plot_loss(self) -> Figure:
        """Draw the loss of every step, its running mean, validation losses and the learning rate; needs matplotlib."""
        from musubi.training.plots import loss_figure

        return loss_figure(self.losses, self.rates, self.validations)

    def _repr_html_(self) -> str:
        return card("TrainResult", self._rows())

    def _rows(self) -> list[tuple[str, object]]:
        rows: list[tuple[str, object]] = [
            ("steps", f"{self.steps} ({self.reason})"),
            ("loss", _course(self.losses)),
            ("time", _clock(self.seconds)),
            ("effect", "none: the weights change nothing" if self.zero_effect else "trained"),
        ]
        best = self.best_validation
        if best is not None:
            rows.append(("best on held-out items", f"{best.loss:.4f} at step {best.step}"))
        rows += self._files()
        more = ".replace(steps=...)" if self.reason == "completed" else ""
        return [*rows, ("go on", f'trainer{more}.run(resume="{shown(self.state)}")')]

    def _files(self) -> list[tuple[str, object]]:
        what = "model" if self._lora is None else "LoRA"
        paths = self.experts or {"": self.path}
        rows: list[tuple[str, object]] = [(f"{what} {name}".strip(), shown(path)) for name, path in paths.items()]
        if self.best is not None:
            rows.append((f"best {what}", shown(self.best)))
        if self.samples:
            folders = ", ".join(sorted({shown(path.parent) for path in self.samples}))
            rows.append(("samples", f"{len(self.samples)} in {folders}"))
        return rows


def _course(losses: Sequence[float]) -> str:
    """Say how the loss went: the mean of the first tenth of the steps, and of the last."""
    finite = [loss for loss in losses if math.isfinite(loss)]
    if not finite:
        return "no steps"
    count = max(1, len(finite) // 10)
    first, last = (sum(part) / count for part in (finite[:count], finite[-count:]))
    return f"{first:.4f} → {last:.4f} (first and last tenth of the steps)"


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
