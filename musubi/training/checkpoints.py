"""A base checkpoint's Linear weights by original name, whatever convention its own names follow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import attrs
import torch
from torch import Tensor

from musubi.architecture import Architecture
from musubi.core.errors import Issue, WeightsError
from musubi.weights.checkpoint import Checkpoint
from musubi.weights.companions import Companions
from musubi.weights.naming import PREFIXES, Piece, plan_pieces, strip


@attrs.frozen(eq=False)
class LinearWeights:
    """The weights of a model's Linears in an open checkpoint; fused ones are put together from their parts."""

    checkpoint: Checkpoint
    pieces: Mapping[str, Piece]
    """What makes up each weight, by original module name and in the model's order."""

    _swapped: tuple[str, ...]

    @classmethod
    def of(cls, checkpoint: Checkpoint, model: Architecture) -> LinearWeights:
        """Find the weights of a model's Linears.

        Raises:
            WeightsError: The checkpoint has none of them, or keeps them in 8 bits with scales.
        """
        _refuse_scaled(checkpoint)
        names = {name: strip(name, PREFIXES) for name in checkpoint.names()}
        linears = model.linears()
        wanted = {f"{part.name}.weight" for name in linears for part in model.keys.to_library(name)}
        pieces, _ = plan_pieces(names, model.keys, dict(zip(wanted, wanted, strict=True)))
        if not pieces:
            hint = "give the denoiser's weights, in the original or diffusers' layout"
            raise WeightsError("wrong weights", [Issue(checkpoint.label, f"has no weight of {model.title}", hint)])
        found = {piece.original.removesuffix(".weight"): piece for piece in pieces}
        ordered = {name: found[name] for name in linears if name in found}
        return cls(checkpoint, ordered, model.interchange.swapped)

    def read(self, module: str) -> Tensor:
        """Read the weight of a module as the original checkpoint has it: (outputs, inputs)."""
        piece = self.pieces[module]
        parts = [self.checkpoint.read(name) for name in piece.sources]
        return self._ordered(module, torch.cat(parts) if len(parts) > 1 else parts[0])

    def parts(self, module: str, weight: Tensor) -> dict[str, Tensor]:
        """Return a weight as the file has it, by the file's own names: the inverse of ``read``."""
        sources = self.pieces[module].sources
        rows = [self.checkpoint.shape(name)[0] for name in sources]
        return dict(zip(sources, self._ordered(module, weight).split(rows), strict=True))

    def _ordered(self, module: str, weight: Tensor) -> Tensor:
        """Exchange the halves of rows where diffusers' files have them the other way round."""
        source = strip(self.pieces[module].sources[0], PREFIXES).removesuffix(".weight")
        if source == module or not any(re.fullmatch(pattern, module) for pattern in self._swapped):
            return weight
        return torch.cat(weight.chunk(2)[::-1])


def _refuse_scaled(checkpoint: Checkpoint) -> None:
    scale = next(iter(Companions.of(checkpoint.stated()).scales.values()), None)
    if scale is not None:
        message = f"keeps its weights in 8 bits with scales ({scale.name}), which nothing can be added to"
        raise WeightsError("quantised weights", [Issue(checkpoint.label, message, "use the bf16 or fp16 version")])


def as_path(path: Path | str) -> Path:
    """Return a path with the user's home folder filled in."""
    return Path(path).expanduser()
