"""The reference's timestep options as this library's samplers."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from musubi.core.errors import ConfigError
from musubi.noise.mixture import Mixture
from musubi.noise.timesteps import (
    LogitNormal,
    Mode,
    ResolutionShift,
    Shift,
    Sigmoid,
    TimestepSampler,
    Uniform,
)

DEFAULTS = {
    "timestep_sampling": "sigma",
    "discrete_flow_shift": 1.0,
    "sigmoid_scale": 1.0,
    "weighting_scheme": "none",
    "logit_mean": 0.0,
    "logit_std": 1.0,
    "mode_scale": 1.29,
}
LINES: dict[str, ResolutionShift] = {
    "flux": ResolutionShift(tokens=(256, 4096), mu=(0.5, 1.15)),
    "flux2": ResolutionShift(tokens=(256, 4096), mu=(0.5, 1.15)),
    "qwen": ResolutionShift(tokens=(256, 8192), mu=(0.5, 0.9)),
    "krea2": ResolutionShift(tokens=(256, 6400), mu=(0.5, 1.15)),
}
"""mu by the number of tokens, of which ``flux2`` counts one for each latent cell."""

UNPACKED = ("flux2",)
DETAILS = LogitNormal(mean=-5.36 / 2, std=0.5)
"""The hybrids' third part: log(SNR) of mean 5.36 and deviation 1."""


@attrs.frozen(kw_only=True)
class Meant:
    """What a case's options mean here.

    ``mirrored``: the reference's normal or uniform draws run from much noise to little, and ours the other way.
    ``indexed``: its values are turned into places of a list that begins at the highest level (``sigma``, decision 13:
    here they are levels), so it tells its network ``1000 - floor(1000 value)``, without the 1 it adds to all others.
    """

    sampler: TimestepSampler
    tokens: int
    mirrored: bool = False
    indexed: bool = False

    def timestep(self, sigma: float) -> float:
        """Return what the reference tells its networks for a level of ours (of ``sigma`` up to its rounding down)."""
        return 1000 * (1 - sigma) if self.indexed else 1000 * sigma + 1


def meaning(case: dict[str, Any]) -> Meant:
    """Return what a case's options mean; skip the test, with the reason, where nothing here means that."""
    options = {**DEFAULTS, **case["args"]}
    method: str = options["timestep_sampling"]
    height, width = case.get("latent_hw", (2, 2))
    family = method.removesuffix("_shift")
    packed = (height // 2) * (width // 2)
    return Meant(
        sampler=_sampler(method, options, case["versions"]).replace(**_limits(options)),
        tokens=height * width if family in UNPACKED else packed,
        mirrored=method == "logsnr" or (method == "sigma" and options["weighting_scheme"] == "mode"),
        indexed=method == "sigma",
    )


def _limits(options: dict[str, Any]) -> dict[str, Any]:
    lowest, highest = options.get("min_timestep"), options.get("max_timestep")
    return {
        "low": 0.0 if lowest is None else lowest / 1000,
        "high": 1.0 if highest is None else highest / 1000,
        # not for `sigma`: the reference ignores it there
        "preserve_shape": bool(options.get("preserve_distribution_shape")) and options["timestep_sampling"] != "sigma",
    }


def _sampler(method: str, options: dict[str, Any], versions: list[str]) -> TimestepSampler:
    scale: float = options["sigmoid_scale"]
    if (line := LINES.get(method.removesuffix("_shift"))) is not None:
        return line.replace(scale=scale)
    match method:
        case "uniform":
            return Uniform()
        case "sigmoid":
            return Sigmoid(scale=scale)
        case "shift":
            return Shift(shift=options["discrete_flow_shift"], scale=scale)
        case "logsnr":
            return _log_snr(options)
        case "qinglong_flux" | "qinglong_qwen":
            return _hybrid(method.removeprefix("qinglong_"), options, versions)
        case "sigma":
            return _density(options)
        case _:
            pytest.skip(f"{method}: a rule of a model that this library does not train, the logarithm of its area")


def _log_snr(options: dict[str, Any]) -> LogitNormal:
    return LogitNormal(mean=-options["logit_mean"] / 2, std=options["logit_std"] / 2)


def _hybrid(family: str, options: dict[str, Any], versions: list[str]) -> Mixture:
    middle = LINES[family].replace(scale=options["sigmoid_scale"])
    edges = shares_of(family, versions)
    if len(edges) == 1:
        return Mixture(samplers=(middle, DETAILS), weights=(edges[0], 1 - edges[0]))
    weights = (edges[0], edges[1] - edges[0], 1 - edges[1])
    return Mixture(samplers=(middle, _log_snr(options), DETAILS), weights=weights)


def shares_of(family: str, versions: list[str]) -> tuple[float, ...]:
    """Return up to which share of the draws each part of a hybrid but the last is drawn from."""
    if "0.2.13" in versions:
        return (0.80, 0.875)
    return {"flux": (0.79, 0.90), "qwen": (0.95,)}[family]


def _density(options: dict[str, Any]) -> TimestepSampler:
    match options["weighting_scheme"]:
        case "logit_normal":
            return LogitNormal(mean=options["logit_mean"], std=options["logit_std"])
        case "mode":
            try:
                return Mode(scale=options["mode_scale"])
            except ConfigError:
                pytest.skip("a defect of the reference: at this scale its map folds back on itself")
        case _:
            return Uniform()
