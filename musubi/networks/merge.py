"""Adapters added to the base weights on their way into the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from torch import Tensor

from musubi.core.errors import Issue, WeightsError

if TYPE_CHECKING:
    from musubi.networks.file import LoRAFile


@attrs.define
class Merge:
    """A ``WeightHook``: returns W with every (file, weight) pair's delta added at that strength.

    Computes in float32 and rounds once, to the dtype of W. ``check`` tells afterwards whether everything was used.

    Raises:
        WeightsError: An adapter's shape is not the weight's.
    """

    parts: tuple[tuple[LoRAFile, float], ...]
    _met: set[str] = attrs.field(factory=set, init=False, repr=False)

    @property
    def names(self) -> frozenset[str]:
        """The modules that get something, by the names in the files."""
        return frozenset(name for file, _ in self.parts for name in file.modules)

    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        """Return the merged tensor of an original parameter name; others than adapted weights come back as they are."""
        module, _, leaf = name.rpartition(".")
        found = [(w, weight) for file, weight in self.parts if leaf == "weight" and (w := file.get(module)) is not None]
        if not found:
            return tensor
        self._met.add(module)
        total = tensor.float()
        for weights, weight in found:
            if weights.shape != total.shape:
                message = f"the adapter is for shape {weights.shape}, the weight has {tuple(total.shape)}"
                raise WeightsError("the LoRA does not fit this model", [Issue(module, message)])
            total = weights.merged(total, weight)
        return total.to(tensor.dtype)

    def check(self) -> None:
        """Raise ``WeightsError`` naming adapters that no loaded weight asked for."""
        from musubi.networks.keys import flat

        met = set(map(flat, self._met))
        idle = [name for file, _ in self.parts for name in file.modules if flat(name) not in met]
        if idle:
            more = f" and {len(idle) - 1} more" if len(idle) > 1 else ""
            hint = "is it a LoRA for another architecture or variant?"
            raise WeightsError(
                "the LoRA was not merged completely", [Issue(idle[0], f"no weight of this name{more}", hint)]
            )
