"""A training step of ours against the reference's, on the same weights of a tiny-width Wan.

`python -m tests.bench.bench_training_step --reference /path/to/musubi-tuner [--text 30] [--json FILE]` prints the ratio
of CPU times per step and writes it with the conditions: width 512, 4 blocks, 1024 tokens, rank 16, float32, one thread.
Both sides take turns, the reference in a process of its own with its own classes (``reference_step.py``).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from musubi import AdamW, LoRA, Shift, WanCache, WanDataset, WanTrainer
from musubi.architectures.wan.spec import Wan
from musubi.core.events import Event, StepEnded
from musubi.testing.checkpoints import tiny_wan

RANK, SIDE, TURNS = 16, 512, 5


def trainer(folder: Path, wan: Wan, steps: int, text: int) -> WanTrainer:
    """Return a trainer on one picture whose caption has ``text`` tokens."""
    (folder / "data").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "data" / "picture.png")
    # The tiny tokenizer spells: a mark for the first word, the letters, and the end.
    (folder / "data" / "picture.txt").write_text("x" * (text - 2), encoding="utf-8")
    data = WanDataset.from_folder(folder / "data", resolution=SIDE)
    cache = WanCache(folder / "cache", model=wan).build(data, progress=False)
    return WanTrainer(
        model=wan,
        cache=cache,
        steps=steps,
        output=folder / "out",
        network=LoRA(rank=RANK),
        optimizer=AdamW(lr=1e-4),
        timesteps=Shift(shift=3.0),
        device="cpu",
    )


@contextmanager
def reference(root: Path, dit: Path, text: int) -> Iterator[subprocess.Popen[str]]:
    """Start the reference's side."""
    script = Path(__file__).with_name("reference_step.py")
    paths = [str(root / "src"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    process = subprocess.Popen(
        [sys.executable, str(script), str(dit), str(RANK), str(SIDE // 8), str(text)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def theirs(process: subprocess.Popen[str], steps: int) -> float:
    """Return the CPU seconds of a step of the reference."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{steps}\n")
    process.stdin.flush()
    answer = next(line for line in process.stdout if line.startswith("{"))  # the reference prints, too
    return float(json.loads(answer)["cpu_s"]) / steps


def events_of(trainer: WanTrainer) -> Generator[Event, None, None]:
    """Yield the events of a run, which ends with the generator."""
    with trainer.start() as run:
        yield from run


def ours(events: Iterator[Event], steps: int) -> float:
    """Return the CPU seconds of a step of ours."""
    began = time.process_time()
    taken = 0
    while taken < steps:
        taken += isinstance(next(events), StepEnded)
    return (time.process_time() - began) / steps


def main() -> None:
    """Measure in turns, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--text", type=int, default=30)
    parser.add_argument("--json", type=Path, default=Path("bench_training_step.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wan = tiny_wan(folder / "model", dim=512, head_dim=128, num_layers=4)
        run = events_of(trainer(folder, wan, options.steps * TURNS + 1, options.text))
        ours(run, 1)
        with closing(run), reference(options.reference, wan.weight("dit").resolve(), options.text) as process:
            pairs = [(theirs(process, options.steps), ours(run, options.steps)) for _ in range(TURNS)]
    ratios = [slow / quick for slow, quick in pairs]
    found = {
        "ratio": median(ratios),
        "ratios": ratios,
        "reference_cpu_s_per_step": median(slow for slow, _ in pairs),
        "musubi_cpu_s_per_step": median(quick for _, quick in pairs),
        "text_tokens": options.text,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": 1,
    }
    options.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    sys.stdout.write(f"the reference's step takes {found['ratio']:.2f} times ours ({found})\n")


if __name__ == "__main__":
    main()
