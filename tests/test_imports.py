"""What importing costs: CPU time beyond the bare interpreter, and which modules come along."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

import pytest

from musubi.core import kinds

HEAVY = frozenset(
    ("torch", "transformers", "diffusers", "av", "numpy", "accelerate", "PIL", "safetensors", "matplotlib")
)
TIMES = 3

# The child measures itself from its own start: interpreter, site and the statement.
MEASURE = """
import sys, time
{statement}
import json
print(json.dumps([time.process_time(), sorted(set(name.partition(".")[0] for name in sys.modules))]))
"""


def run(statement: str) -> tuple[float, frozenset[str]]:
    """Return the CPU seconds a fresh interpreter used, the best of several, and the packages it loaded.

    Compiling is not part of it: what the first of them compiled, the others find.
    """
    best, packages = float("inf"), frozenset[str]()
    with tempfile.TemporaryDirectory() as compiled:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        outputs = [_told(statement, environment) for _ in range(TIMES)]
    for output in outputs:
        seconds, names = json.loads(output)
        best, packages = min(best, seconds), frozenset(names)
    return best, packages


def _told(statement: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-c", MEASURE.format(statement=statement)]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


@pytest.fixture(scope="module")
def bare() -> float:
    """Return what the interpreter alone costs."""
    return run("pass")[0]


def test_the_package_costs_less_than_a_tenth_of_a_second(bare: float) -> None:
    seconds, packages = run("import musubi")

    assert not packages & HEAVY
    assert seconds - bare < 0.1


def test_a_trainer_costs_less_than_three_tenths_and_no_torch(bare: float) -> None:
    seconds, packages = run("from musubi import WanTrainer")

    assert not packages & HEAVY
    assert seconds - bare < 0.3


@pytest.mark.parametrize("family", ["Wan", "QwenImage"])
def test_describing_everything_loads_nothing_heavy(family: str) -> None:
    names = ", ".join(f"{family}{noun}" for noun in ("", "Dataset", "Cache", "Trainer", "Pipeline"))

    _, packages = run(f"from musubi import {names}, LoRA, BlockSwap, FP8Scaled, AdamW, Cosine, Euler, Request, hub")

    assert not packages & HEAVY


@pytest.mark.parametrize("family", kinds.KINDS)
def test_every_registered_spec_is_described_without_torch(family: str) -> None:
    made = "; ".join(f"kinds.find({family!r}, {kind!r})" for kind in kinds.KINDS[family])

    _, packages = run(f"from musubi.core import kinds; {made}")

    assert not packages & HEAVY


def test_importing_changes_neither_environment_nor_logging() -> None:
    statement = """
import logging, os, warnings
before = dict(os.environ), list(logging.root.handlers), logging.root.level, list(warnings.filters)
from musubi import WanTrainer
assert before == (dict(os.environ), list(logging.root.handlers), logging.root.level, list(warnings.filters))
"""

    run(statement)
