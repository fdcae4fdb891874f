"""How much a run costs beyond its mathematics: steps of `Trainer.run` against a bare loop over the same network.

`python tests/bench/bench_steps.py [--steps N] [--json FILE]` prints the ratio of CPU times from one process and writes
it with the conditions. Both train the same adapters on the embedded demo model with the same batches.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch

from musubi import AdamW, LoRA, WanCache, WanDataset, WanTrainer
from musubi.quickstart.base_model import demo_model
from musubi.quickstart.dataset import write_dataset
from musubi.training.material import Material
from musubi.training.processes import Processes
from musubi.training.setup import Setup


def prepare(folder: Path, steps: int) -> WanTrainer:
    """Return a trainer on a built cache."""
    wan = demo_model()
    data = WanDataset.from_folder(write_dataset(folder / "data"), resolution=64).with_batch_size(4)
    cache = WanCache(folder / "cache", model=wan).build(data, progress=False)
    return WanTrainer(
        model=wan, cache=cache, steps=steps, output=folder / "out", network=LoRA(rank=16), optimizer=AdamW(lr=1e-3)
    )


def bare(trainer: WanTrainer, steps: int) -> float:
    """Return the CPU seconds of a loop that does nothing but forward, backward and the update."""
    processes = Processes(trainer.device)
    material = Material.open(trainer, processes)
    with ExitStack() as stack:
        setup = Setup.open(trainer, processes, material, stack)
        batches = material.loader.batches()
        batch = next(batches)[1]
        batches.close()

        noise = torch.Generator().manual_seed(0)

        def loop() -> None:
            for _ in range(steps):
                setup.objective.measure(setup.model, batch, generator=noise).loss.backward()
                setup.optimizer.step()
                setup.optimizer.zero_grad()

        return seconds(loop)


def whole(trainer: WanTrainer, steps: int) -> float:
    """Return the CPU seconds of a run's steps, without opening and closing it."""
    events = iter(trainer.start())
    next(events)

    def loop() -> None:
        for _ in range(steps):
            next(events)

    return seconds(loop)


def seconds(work: Callable[[], None]) -> float:
    """Return the CPU time of this process that ``work`` takes."""
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--json", type=Path, default=Path("bench_steps.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        trainer = prepare(Path(folder), options.steps)
        pairs = [(whole(trainer, options.steps), bare(trainer, options.steps)) for _ in range(3)]
    ratios = sorted(run / loop for run, loop in pairs)
    found = {
        "ratio": ratios[1],
        "ratios": ratios,
        "run_cpu_s_per_step": pairs[0][0] / options.steps,
        "steps": options.steps,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": 1,
    }
    options.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    sys.stdout.write(f"a run's step takes {ratios[1]:.2f} times the CPU time of the bare mathematics ({ratios})\n")


if __name__ == "__main__":
    main()
