"""Averages over the files of a run, made after it: exponential ones and the power profiles of EDM2."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import Tensor

from musubi.core.errors import ConfigError, Issue, WeightsError
from musubi.networks.weights import AdapterWeights

_FLATTEST = (math.sqrt(5) - 3) / 2
"""The exponent of the widest power profile: ``width`` has its maximum there, where gamma^2 + 3 gamma + 1 = 0."""


def width(gamma: float) -> float:
    """Return the relative width of a power profile (Karras et al. 2024, https://arxiv.org/abs/2312.02696)."""
    return math.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)))


def exponent(sigma_rel: float) -> float:
    """Return the exponent gamma of the power profile with a relative width, the inverse of ``width``.

    Solves the cubic of the paper's algorithm 2, ``g^3 + 7 g^2 + (16 - s^-2) g + 12 - s^-2 = 0``. Above 1 / sqrt(12) =
    0.2887 its root is negative (earlier files weigh more than later ones); none is wider than 0.3003.

    Raises:
        ConfigError: No power profile is that wide, or the width is not positive.
    """
    widest = width(_FLATTEST)
    if not 0 < sigma_rel <= widest:
        hint = "give a smaller one, or a decay instead"
        problem = Issue("sigma_rel", f"must be above 0 and at most {widest:.4f}, got {sigma_rel!r}", hint)
        raise ConfigError("average", [problem])
    low, high = _FLATTEST, 1 / sigma_rel + 1
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if width(middle) > sigma_rel else (low, middle)
    return (low + high) / 2


def linear_decays(count: int, decay: float, last: float) -> tuple[float, ...]:
    """Return by how much each of ``count`` files but the first keeps of the average so far: ``decay`` up to ``last``.

    Two files know only ``decay``.

    Raises:
        ConfigError: A decay is not from 0 to 1.
    """
    issues = [Issue("decay", f"must be from 0 to 1, got {value!r}") for value in {decay, last} if not 0 <= value <= 1]
    if issues:
        raise ConfigError("average", issues)
    steps = max(count - 2, 1)
    return tuple(decay + (last - decay) * (index / steps) for index in range(count - 1))


def power_decays(count: int, sigma_rel: float) -> tuple[float, ...]:
    """Return the decays of a power profile over ``count`` files: ``(1 - 1/t)^(gamma + 1)`` for the t-th file, t >= 2.

    The first file is t = 1, so it counts. (The reference starts at t = 1 with the second one, which discards the first;
    its result is this one's for the files after the first.)
    """
    gamma = exponent(sigma_rel)
    return tuple((1 - 1 / t) ** (gamma + 1) for t in range(2, count + 1))


def averaged(files: Sequence[Mapping[str, AdapterWeights]], decays: Sequence[float]) -> dict[str, AdapterWeights]:
    """Return ``decay * average + (1 - decay) * file`` from file to file, matrix by matrix, in float32.

    Types of the matrices are the first file's.

    Args:
        files: Modules of every file, oldest first; all must have the same, with the same alphas and shapes.
        decays: One for every file but the first.

    Raises:
        WeightsError: The files differ in modules, kinds, shapes or alphas; all differences are listed.
    """
    issues = [issue for number, file in enumerate(files[1:], 2) for issue in _differences(files[0], file, number)]
    if issues:
        raise WeightsError("the files cannot be averaged", issues)
    return {name: _average([file[name] for file in files], decays) for name in files[0]}


def _average(series: Sequence[AdapterWeights], decays: Sequence[float]) -> AdapterWeights:
    means: dict[str, Tensor] = {}
    for field in attrs.fields(type(series[0])):
        matrices = [getattr(weights, field.name) for weights in series]
        if field.name != "alpha" and isinstance(matrices[0], Tensor):
            means[field.name] = _mean(matrices, decays)
    return attrs.evolve(series[0], **means)


def _mean(matrices: Sequence[Tensor], decays: Sequence[float]) -> Tensor:
    mean = matrices[0].float()
    for matrix, decay in zip(matrices[1:], decays, strict=True):
        mean = mean * decay + matrix.float() * (1 - decay)
    return mean.to(matrices[0].dtype)


def _matrices(weights: AdapterWeights) -> dict[str, Tensor]:
    return {role: tensor for role, tensor in weights.tensors().items() if role != "alpha"}


def _differences(first: Mapping[str, AdapterWeights], other: Mapping[str, AdapterWeights], number: int) -> list[Issue]:
    issues = [Issue(name, f"is missing in file {number}") for name in first if name not in other]
    issues += [Issue(name, f"is in file {number}, not in the first") for name in other if name not in first]
    for name in (name for name in first if name in other):
        mine, theirs = first[name], other[name]
        shapes = [{role: tuple(t.shape) for role, t in _matrices(w).items()} for w in (mine, theirs)]
        if shapes[0] != shapes[1]:
            issues.append(Issue(name, f"has other shapes in file {number}", "average files of one run"))
        elif not torch.allclose(mine.alpha.float(), theirs.alpha.float()):
            alphas = f"{float(mine.alpha):g} and {float(theirs.alpha):g}"
            issues.append(Issue(name, f"has other alphas in the first file and file {number}: {alphas}"))
    return issues
