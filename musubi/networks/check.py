"""Which programs will take how much of a LoRA file, found out before it is published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs
import torch

from musubi.architecture import Architecture
from musubi.core.errors import Issue
from musubi.networks.binding import ModelNames
from musubi.networks.consumers import CONSUMERS, Offer, refusals
from musubi.networks.keys import LayoutName
from musubi.networks.tables import html_table, text_table
from musubi.networks.weights import AdapterWeights, LoRAWeights

if TYPE_CHECKING:
    from musubi.networks.file import LoRAFile

_HEAD = ("program", "takes", "why not the rest")


@attrs.frozen
class Verdict:
    """What one program takes: ``taken`` of ``total`` modules, and an issue for each of the others."""

    program: str
    total: int
    refused: tuple[Issue, ...] = ()
    available: bool = True
    """Whether the program has this model at all."""

    @property
    def taken(self) -> int:
        """How many modules it takes."""
        return self.total - len(self.refused) if self.available else 0

    @property
    def complete(self) -> bool:
        """Whether it takes all."""
        return self.available and not self.refused

    def row(self) -> tuple[str, str, str]:
        """Return the line of the table."""
        if not self.available:
            return self.program, "-", "it does not have this model"
        first = f"{self.refused[0].path}: {self.refused[0].message}" if self.refused else ""
        return self.program, f"{self.taken} of {self.total}", first


@attrs.frozen(repr=False)
class Check:
    """What programs make of a LoRA file in one layout; prints as a table, ``check["diffusers"]`` is one verdict."""

    layout: LayoutName
    verdicts: tuple[Verdict, ...]

    def __getitem__(self, program: str) -> Verdict:
        return next(verdict for verdict in self.verdicts if verdict.program == program)

    @property
    def complete(self) -> bool:
        """Whether every program that has this model takes the whole file."""
        return all(verdict.complete for verdict in self.verdicts if verdict.available)

    def __str__(self) -> str:
        rows = [_HEAD, *(verdict.row() for verdict in self.verdicts)]
        left = text_table([row[:2] for row in rows]).splitlines()
        lines = [f"{line}  {row[2]}".rstrip() for line, row in zip(left, rows, strict=True)]
        return "\n".join([f"layout {self.layout!r}:", *lines])

    def __repr__(self) -> str:
        taken = ", ".join(f"{verdict.program} {verdict.taken}/{verdict.total}" for verdict in self.verdicts)
        return f"<Check of layout {self.layout!r}: {taken}>"

    def _repr_html_(self) -> str:
        return html_table(f"layout {self.layout!r}", [_HEAD, *(verdict.row() for verdict in self.verdicts)])


def checked(file: LoRAFile, model: Architecture, layout: LayoutName) -> Check:
    """Ask every consumer about a bound file; tensors of the real shapes at rank 1 stand for the file's own.

    Raises:
        WeightsError: The layout cannot hold these adapters.
    """
    sizes = model.linears()
    names = ModelNames(originals=tuple(sizes), keymap=model.keys, sizes=sizes, swapped=model.interchange.swapped)
    standing = attrs.evolve(file, modules=_stand_ins(file.modules), model=model)
    offer = Offer(
        model=model, names=names, layout=layout, modules=file.modules, tensors=standing.tensors(layout, dtype="as is")
    )
    verdicts: list[Verdict] = []
    for program, consumer in CONSUMERS.items():
        reasons = consumer(offer)
        refused = refusals(offer, reasons) if reasons else ()
        verdicts.append(Verdict(program, len(file.modules), refused, reasons is not None))
    return Check(layout, tuple(verdicts))


def _stand_ins(modules: Mapping[str, AdapterWeights]) -> dict[str, AdapterWeights]:
    return {name: _stand_in(weights) for name, weights in modules.items()}


def _stand_in(weights: AdapterWeights) -> AdapterWeights:
    if not isinstance(weights, LoRAWeights):
        return weights.replaced(lambda _: torch.zeros(1, 1))
    outputs, inputs, *kernel = weights.shape
    return LoRAWeights(
        down=torch.zeros(1, inputs, *kernel),
        up=torch.zeros(outputs, 1, *[1] * len(kernel)),
        alpha=torch.tensor(0.5),
        magnitude=None if weights.magnitude is None else torch.zeros(outputs),
    )
