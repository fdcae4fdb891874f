"""How fast weights are quantised and come back, and how far they are then from what they were.

`python -m tests.bench.bench_quantise [--reference FOLDER ...] [--size N] [--rounds N] [--json FILE]` prints gigabytes
of bfloat16 weights per second of CPU time on one thread, for each format, and relative errors on five distributions
of weights. `--reference` are folders to import musubi-tuner (and what it needs) from; then the two quantise by turns
in this process, the bits are compared, and the ratio is printed.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from musubi.memory.formats import FP8, NF4, Cast, Int8, WeightFormat

FORMATS: dict[str, WeightFormat] = {
    "fp8 block": FP8(),
    "fp8 channel": FP8("channel"),
    "fp8 tensor": FP8("tensor"),
    "int8 block": Int8(),
    "int8 channel": Int8("channel"),
    "fp8 cast": Cast(),
    "nf4": NF4(),
}


def main() -> None:
    """Measure, print, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", nargs="*", default=[])
    parser.add_argument("--size", type=int, default=5120)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    weight = (torch.randn(options.size, options.size) * 0.02).bfloat16()
    found = {
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "size": options.size,
        "speed": {name: speed(format, weight, options.rounds) for name, format in FORMATS.items()},
        "error": {name: errors(format) for name, format in FORMATS.items()},
    }
    if options.reference:
        found["reference"] = compared(weight, options.reference, options.rounds)
    show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2), encoding="utf-8")


def speed(format: WeightFormat, weight: Tensor, rounds: int) -> dict[str, float]:
    """Return GB of bfloat16 per CPU-second, there and back."""
    stored, scale = format.quantise(weight)
    shape = int(weight.shape[0]), int(weight.shape[1])
    there = seconds(lambda: format.quantise(weight), rounds)
    back = seconds(lambda: format.dequantise(stored, scale, shape=shape, dtype=weight.dtype), rounds)
    return {"quantise": weight.nbytes / 1e9 / there, "dequantise": weight.nbytes / 1e9 / back}


def compared(weight: Tensor, folders: list[str], rounds: int) -> dict[str, Any]:
    """Quantise by turns with the reference (block, 64 inputs) and return the median ratio of CPU times."""
    sys.path[:0] = folders
    theirs = import_module("musubi_tuner.modules.fp8_optimization_utils").quantize_weight
    pairs = []
    for _ in range(rounds):
        their_seconds = seconds(lambda: theirs("w", weight, torch.float8_e4m3fn, 448.0, -448.0, "block", 64), 1)
        pairs.append((their_seconds, seconds(lambda: FP8().quantise(weight), 1)))
    other, other_scale = theirs("w", weight, torch.float8_e4m3fn, 448.0, -448.0, "block", 64)[:2]
    own, own_scale = FP8().quantise(weight)
    same = torch.equal(other.view(torch.uint8), own.view(torch.uint8))
    return {
        "ratio": statistics.median(their / our for their, our in pairs),
        "reference GB/s": weight.nbytes / 1e9 / statistics.median(their for their, _ in pairs),
        "same bits": same and torch.equal(other_scale.float(), own_scale.float()),
    }


def errors(format: WeightFormat) -> dict[str, float]:
    """Return ||w' - w|| / ||w|| for five distributions of weights (1024, 5120), dequantised in float32."""
    found: dict[str, float] = {}
    for name, weight in distributions().items():
        stored, scale = format.quantise(weight)
        back = format.dequantise(
            stored, None if scale is None else scale.float(), shape=(1024, 5120), dtype=torch.float32
        )
        found[name] = float((back - weight.float()).norm() / weight.float().norm())
    return found


def distributions() -> dict[str, Tensor]:
    """Return bfloat16 weights (1024, 5120)."""
    torch.manual_seed(1)
    plain = torch.randn(1024, 5120) * 0.02
    outliers = plain.clone()
    outliers[torch.rand_like(plain) < 1e-4] *= 50
    student = torch.distributions.StudentT(4.0).sample((1024, 5120)) * 0.02
    rows, columns = (torch.randn(shape).exp() for shape in ((1024, 1), (1, 5120)))
    found = {"normal": plain, "0.01 % outliers x 50": outliers, "Student t4": student}
    found |= {"log-normal rows": plain * rows, "log-normal columns": plain * columns}
    return {name: weight.bfloat16() for name, weight in found.items()}


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Return the median CPU time of some rounds."""
    spent = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return statistics.median(spent)


def show(found: dict[str, Any]) -> None:
    """Print what was measured as tables."""
    lines = [f"{found['size']} x {found['size']} bfloat16, one thread, GB per CPU-second; relative errors"]
    names = list(next(iter(found["error"].values())))
    lines.append(f"{'format':14}{'quantise':>10}{'back':>8}  " + "".join(f"{name:>22}" for name in names))
    for name, rates in found["speed"].items():
        error = "".join(f"{found['error'][name][kind]:22.4f}" for kind in names)
        lines.append(f"{name:14}{rates['quantise']:10.2f}{rates['dequantise']:8.2f}  {error}")
    if "reference" in found:
        known = found["reference"]
        lines.append(
            f"reference's fp8 block: {known['reference GB/s']:.3f} GB/s; ours is {known['ratio']:.2f} times as fast,"
            f" {'the same bits' if known['same bits'] else 'OTHER BITS'}"
        )
    sys.stdout.write("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
