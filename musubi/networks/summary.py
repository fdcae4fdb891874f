"""How strongly a LoRA changes which parts of a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import attrs

from musubi.core.figures import new_figure
from musubi.networks.spectrum import norm
from musubi.networks.tables import html_table, text_table
from musubi.networks.weights import AdapterWeights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NUMBER = re.compile(r"(?<![^._])\d+(?![^._])")


@attrs.frozen
class ModuleNorm:
    """One adapted module, its adapter's size and the Frobenius norm of its delta."""

    name: str
    rank: int
    alpha: float
    norm: float

    @property
    def group(self) -> str:
        """The name with ``{}`` for the number of the block."""
        return _NUMBER.sub("{}", self.name, count=1)

    @property
    def block(self) -> str:
        """The name up to the number of the block, e.g. ``blocks.3``; the whole name without one."""
        found = _NUMBER.search(self.name)
        return self.name[: found.end()] if found else self.name


@attrs.frozen(repr=False)
class Summary:
    """Ranks, alphas and norms of the deltas, by groups of like modules of all blocks."""

    modules: tuple[ModuleNorm, ...]

    @property
    def groups(self) -> Mapping[str, tuple[ModuleNorm, ...]]:
        """The modules of each group, e.g. of ``blocks.{}.self_attn.q``."""
        found: dict[str, list[ModuleNorm]] = {}
        for module in self.modules:
            found.setdefault(module.group, []).append(module)
        return {name: tuple(modules) for name, modules in found.items()}

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table: name, count, rank, alpha, mean and largest norm of every group."""
        return [
            (
                name,
                str(len(modules)),
                _range(module.rank for module in modules),
                _range(module.alpha for module in modules),
                f"{sum(module.norm for module in modules) / len(modules):.4g}",
                f"{max(module.norm for module in modules):.4g}",
            )
            for name, modules in self.groups.items()
        ]

    def plot(self) -> Figure:
        """Draw the norm of every delta, blocks from left to right, one line for each group (needs matplotlib)."""
        figure = new_figure(9.0, 4.5)
        axes = figure.add_subplot()
        blocks = list(dict.fromkeys(module.block for module in self.modules))
        for name, modules in self.groups.items():
            places = [blocks.index(module.block) for module in modules]
            axes.plot(places, [module.norm for module in modules], marker=".", label=name)
        axes.set(title="Norm of each module's delta", xlabel="block", ylabel="Frobenius norm")
        axes.legend(fontsize="x-small", ncols=2)
        return figure

    def __str__(self) -> str:
        return text_table([_COLUMNS, *self.rows()])

    def __repr__(self) -> str:
        return f"<Summary of {len(self.modules)} modules in {len(self.groups)} groups>"

    def _repr_html_(self) -> str:
        return html_table(f"{len(self.modules)} adapted modules", [_COLUMNS, *self.rows()])


_COLUMNS = ("modules", "count", "rank", "alpha", "mean norm", "largest")


def summarised(modules: Mapping[str, AdapterWeights]) -> Summary:
    """Return the summary of adapters by module name."""
    return Summary(
        tuple(ModuleNorm(name, weights.rank, float(weights.alpha), norm(weights)) for name, weights in modules.items())
    )


def _range(values: Iterable[float]) -> str:
    found = sorted(set(values))
    return f"{found[0]:g}" if len(found) == 1 else f"{found[0]:g}-{found[-1]:g}"
