"""Device memory and step times of LoRA training of full-size models with random weights, against the goals.

``python -m tests.bench.bench_device_memory`` runs the rows of ``device_memory_rows`` in their order, each in a process
of its own, until all are done or ``--total-s`` (570) is up; what is left is listed as not run. One that runs out of
memory or of its ``--row-s`` is reported, and the next begins. ``--rows qwen/fp8,qwen/fp8+16`` selects by name,
``--rows qwen/`` all of a job (an estimate for an H200: seven minutes; ``wan-video/`` five, ``wan-image/`` two). Prints
a table and the goals, and writes JSON. Units are GiB.

Qwen-Image: 60 blocks, 1024x1024 (4096 tokens), 300 text tokens. Wan 14B: 40 blocks, 832x480 as an image and with 81
frames. Batch size 1, rank 16, bfloat16 autocast, 8-bit AdamW.
``--device cpu --layers 4 --width 64 --size 64 --text 8 --steps 2`` tries all of it in a minute.

Goals (docs: memory): G1, a step takes at most 1.03 times max(forward, copy) + max(backward, copy) of the resident
row, plus 5 ms; G2, swapping costs a video at most 2 %; G3, 20 of Qwen-Image's blocks in 8 bits cost at most 3 %; the
prediction of ``plan()`` is within 5 % of the measured peak.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tests.bench.device_memory_rows import ROWS

GIB, SLOTS = 1 << 30, 2
ROOT = Path(__file__).parents[2]
Told = Mapping[str, Any]
_CARRIED = ("device", "optimizer", "steps", "warm_up", "layers", "width", "size", "text")
_SHORTEST_S = 45.0
"""A row is not begun with less time left than this: a large model alone takes that long to draw."""


def main() -> None:
    """Run the rows, print and write what they tell."""
    options = arguments()
    began, told = time.monotonic(), dict[str, Told]()
    for name in chosen(options.rows):
        left = options.total_s - (time.monotonic() - began)
        if left < min(_SHORTEST_S, options.total_s / 2):
            told[name] = {"row": name, "error": "not run: the time is up"}
            continue
        told[name] = row(name, options, timeout_s=min(left, options.row_s))
        sys.stdout.write(f"{line(name, told[name])}\n")
        sys.stdout.flush()
    checks = list(goals(told, scaled=scaled(options)))
    sys.stdout.write("\n".join(["", table(told), "", *checks, ""]))
    written = {"conditions": conditions(options), "rows": told, "goals": checks}
    options.json.write_text(json.dumps(written, indent=2), encoding="utf-8")


def chosen(names: str | None) -> list[str]:
    """Return the rows of comma-separated names or beginnings of names, in the table's order."""
    wanted = names.split(",") if names else list(ROWS)
    found = [
        row for row in ROWS if any(row == name or (name.endswith("/") and row.startswith(name)) for name in wanted)
    ]
    if not found:
        raise SystemExit(f"no such rows: {names}; there are {', '.join(ROWS)}")
    return found


def row(name: str, options: argparse.Namespace, *, timeout_s: float) -> Told:
    """Return what a row tells, or why it tells nothing."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "row.json"
        carried = {key: getattr(options, key) for key in _CARRIED}
        given = [f"--{key.replace('_', '-')}={value}" for key, value in carried.items() if value is not None]
        command = [sys.executable, "-m", "tests.bench.device_memory_row", "--row", name, "--json", str(file), *given]
        try:
            ended = subprocess.run(command, cwd=ROOT, check=False, timeout=timeout_s, capture_output=True, text=True)
        except subprocess.TimeoutExpired:
            return {"row": name, "error": f"stopped after {timeout_s:.0f} s"}
        if file.exists():
            return dict(json.loads(file.read_text(encoding="utf-8")), log=ended.stderr[-4000:])
        return {"row": name, "error": f"ended with {ended.returncode}, as a process that is killed for memory does"}


def table(told: Mapping[str, Told]) -> str:
    """Return one line for each row."""
    head = (
        *("row", "predicted", "allocated", "reserved", "published", "goal"),
        *("step s", "fwd s", "bwd s", "vs resident", "host RSS", "pinned (plan)", "open s"),
    )
    lines = [head, *(cells(name, one, told) for name, one in told.items())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.rjust, line, widths)) for line in lines)


def cells(name: str, one: Told, told: Mapping[str, Told]) -> tuple[str, ...]:
    """Return a row of the table."""
    spec, limits = ROWS[name], (_number(ROWS[name].published), _number(ROWS[name].goal))
    if "error" in one:
        return (name, one["error"][:40], "", "", *limits, "", "", "", "", "", "", "")
    training, slower = one["training"] or {}, slowdown(name, told)
    return (
        name,
        _gib(one["predicted"]["allocated"]),
        _gib(training.get("allocated")),
        _gib(training.get("reserved")),
        *limits,
        *(f"{one[key]:.3f}" for key in ("step_s", "forward_s", "backward_s")),
        "" if slower is None else f"{slower:+.1%}",
        _gib(one["host"]["peak"]),
        _gib(one["predicted"]["pinned"]) if spec.swapped else "",
        f"{one['opened_s']:.0f}",
    )


def line(name: str, one: Told) -> str:
    """Return one row's news as it ends."""
    if "error" in one:
        return f"{name}: {one['error']}"
    peak = _gib((one["training"] or {}).get("allocated"))
    return f"{name}: {one['step_s']:.3f} s a step, peak {peak}, predicted {_gib(one['predicted']['allocated'])}"


def goals(told: Mapping[str, Told], *, scaled: bool) -> Iterable[str]:
    """Yield each goal that these rows can tell of, and whether it is met."""
    if scaled:
        yield "goals are for the full-size models on a GPU: none of these figures is held against them"
        return
    for name, one in told.items():
        spec = ROWS[name]
        if "error" in one:
            continue
        if one["training"] is not None:
            measured = one["training"]["allocated"]
            off = one["predicted"]["allocated"] / measured - 1
            yield _goal(f"{name}: predicted within 5 % of measured", abs(off) <= 0.05, f"{off:+.1%}")
            if spec.goal is not None:
                yield _goal(f"{name}: at most {spec.goal:g} GiB", measured <= spec.goal * GIB, f"{measured / GIB:.1f}")
        slower = slowdown(name, told)
        if slower is not None and spec.slowdown is not None:
            yield _goal(
                f"{name}: at most {spec.slowdown:.0%} slower than resident", slower <= spec.slowdown, f"{slower:+.1%}"
            )
        bound = least_step_s(name, told)
        if bound is not None:
            met = one["step_s"] <= 1.03 * bound + 0.005
            yield _goal(f"{name}: G1, at most 1.03 x {bound:.3f} s + 5 ms", met, f"{one['step_s']:.3f} s")


def slowdown(name: str, told: Mapping[str, Told]) -> float | None:
    """Return by how much a step takes longer than with everything resident; None where that is not known."""
    resident = told.get(ROWS[name].resident or "", {"error": ""})
    if "error" in resident or "error" in told[name]:
        return None
    return float(told[name]["step_s"] / resident["step_s"] - 1)


def least_step_s(name: str, told: Mapping[str, Told]) -> float | None:
    """Return the seconds that a step must take: each pass its computation, or its copies if these take longer."""
    if not ROWS[name].swapped or ROWS[name].offloaded:
        return None
    one, resident = told[name], told.get(ROWS[name].resident or "", {"error": ""})
    if "error" in resident or not one.get("bandwidth"):
        return None
    # These rows pin nothing but the swapped blocks, of which the last ones of a pass stay for the next.
    swapped = ROWS[name].swapped
    copies_s = one["predicted"]["pinned"] * (swapped - SLOTS) / swapped / one["bandwidth"]
    return float(max(resident["forward_s"], copies_s) + max(resident["backward_s"], copies_s))


def scaled(options: argparse.Namespace) -> bool:
    """Tell whether the models are smaller than the published ones, or the device is none to compare."""
    return options.device == "cpu" or any(getattr(options, key) for key in ("layers", "width", "size", "text"))


def conditions(options: argparse.Namespace) -> dict[str, object]:
    """Return where and how this was measured."""
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else platform.processor()
    return {
        "device": name or platform.machine(),
        "torch": torch.__version__,
        "system": platform.platform(),
        **{key: getattr(options, key) for key in _CARRIED},
    }


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", help="names, or beginnings that end in /, with commas")
    parser.add_argument("--json", type=Path, default=Path("bench_device_memory.json"))
    parser.add_argument("--total-s", type=float, default=570)
    parser.add_argument("--row-s", type=float, default=240)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--optimizer", default="adamw8bit", help="or adamw, where bitsandbytes is not installed")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=5)
    for scale in ("layers", "width", "size", "text"):
        parser.add_argument(f"--{scale}", type=int)
    return parser.parse_args(given)


def _goal(text: str, met: bool, found: str) -> str:
    return f"{'met   ' if met else 'MISSED'}  {text}: {found}"


def _gib(size: float | None) -> str:
    return "n/a" if size is None else f"{size / GIB:.2f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


if __name__ == "__main__":
    main()
