"""What a run leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from musubi.core.errors import shown
from musubi.core.events import Reason
from musubi.core.notebook import card
from musubi.networks.file import LoRAFile

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@attrs.frozen(kw_only=True)
class TrainResult:
    """A finished run: the trained weights, where they were written, and how it went.

    ``losses`` and ``rates`` hold one number for each optimiser step since the very first, resumed or not.
    """

    lora: LoRAFile = attrs.field(repr=False)
    path: Path
    state: Path
    steps: int
    reason: Reason
    losses: tuple[float, ...] = attrs.field(repr=False)
    rates: tuple[float, ...] = attrs.field(repr=False)
    seconds: float
    samples: tuple[Path, ...] = attrs.field(default=(), repr=False)

    @property
    def zero_effect(self) -> bool:
        """Whether the trained weights change nothing, e.g. because the learning rate was 0."""
        return self.lora.zero_effect

    def plot_loss(self) -> Figure:
        """Draw the loss of every step, its running mean and the learning rate; needs matplotlib."""
        from musubi.training.plots import loss_figure

        return loss_figure(self.losses, self.rates)

    def _repr_html_(self) -> str:
        return card(
            "TrainResult",
            [
                ("steps", f"{self.steps} ({self.reason})"),
                ("loss, last 10 % of steps", _mean(self.losses[-max(1, len(self.losses) // 10) :])),
                ("time", f"{self.seconds:.1f} s"),
                ("LoRA", shown(self.path)),
                ("state to resume from", shown(self.state)),
                ("effect", "none: the weights are still zero" if self.zero_effect else "trained"),
            ],
        )


def _mean(values: tuple[float, ...]) -> str:
    return f"{sum(values) / len(values):.4f}" if values else "no steps"
