"""LoRAs from the difference of two checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

from musubi.core.errors import ConfigError, Issue, WeightsError
from musubi.networks.spectrum import of_matrix
from musubi.networks.weights import AdapterWeights, LoRAWeights

if TYPE_CHECKING:
    from musubi.networks.spectrum import Spectrum

Pair = tuple[str, Tensor, Tensor]
"""An original module name, its weight (out, in) before training, and after."""


def extracted(
    pairs: Iterable[Pair], *, rank: int, keep: float | None = None, clamp: float | None = None
) -> dict[str, AdapterWeights]:
    """Return the LoRAs nearest to the differences of weights; modules without difference get none.

    Works on one pair at a time, in float32 and on the pair's device; results are float32 on the CPU. The singular
    values are in ``up``, as the reference has them.

    Raises:
        ConfigError: A number makes no sense.
        WeightsError: Two weights have different shapes, or are no matrices.
    """
    _check(rank, keep, clamp)
    result: dict[str, AdapterWeights] = {}
    for name, before, after in pairs:
        if before.shape != after.shape or before.ndim != 2:
            shapes = f"{tuple(before.shape)} and {tuple(after.shape)}"
            raise WeightsError("cannot extract a LoRA", [Issue(name, f"the weights have shapes {shapes}")])
        difference = after.float() - before.float()
        if difference.any():
            result[name] = _nearest(of_matrix(difference), rank, keep, clamp)
    if not result:
        hint = "give the checkpoint before training, and the one after it"
        raise WeightsError("cannot extract a LoRA", [Issue("", "the checkpoints do not differ", hint)])
    return result


def _nearest(found: Spectrum, rank: int, keep: float | None, clamp: float | None) -> LoRAWeights:
    wanted = min(rank, len(found.values), found.rank_for(keep) if keep is not None else rank)
    up, down = found.left[:, :wanted] * found.values[:wanted], found.right[:wanted]
    weights = LoRAWeights(down=down.cpu().contiguous(), up=up.cpu().contiguous(), alpha=torch.tensor(float(wanted)))
    return weights if clamp is None else _clamped(weights, clamp)


def _clamped(weights: LoRAWeights, share: float) -> LoRAWeights:
    """Cut the matrices to plus and minus one quantile of all their (signed) values."""
    limit = quantile(torch.cat([weights.up.flatten(), weights.down.flatten()]), share)
    return attrs.evolve(weights, up=weights.up.clamp(-limit, limit), down=weights.down.clamp(-limit, limit))


def quantile(values: Tensor, share: float) -> float:
    """Return a quantile, interpolated linearly; unlike torch's, of any number of values."""
    place = share * (len(values) - 1)
    low = int(place)
    ordered = values.sort().values
    return float(torch.lerp(ordered[low], ordered[min(low + 1, len(values) - 1)], place - low))


def _check(rank: int, keep: float | None, clamp: float | None) -> None:
    issues: list[Issue] = []
    if rank < 1:
        issues.append(Issue("rank", f"must be at least 1, got {rank!r}"))
    if keep is not None and not 0 < keep <= 1:
        issues.append(Issue("keep", f"must be above 0 and at most 1, got {keep!r}"))
    if clamp is not None and not 0.5 < clamp <= 1:
        issues.append(Issue("clamp", f"must be above 0.5 and at most 1, got {clamp!r}"))
    if issues:
        raise ConfigError("extract", issues)
