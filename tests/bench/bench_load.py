"""How fast checkpoints are loaded, and how much memory that takes at its peak.

`python -m tests.bench.bench_load [--folder FOLDER] [--gigabytes N] [--reference FOLDER ...] [--rounds N] [--json FILE]`
writes a synthetic checkpoint of bfloat16 weights, sharded and as one pickled file (kept in FOLDER for the next time),
and loads it in fresh processes on one thread by turns, the files being in the system's cache:

* plain, pickled: all as it is; FP8Scaled and Int8Scaled: quantised on the way.
* safetensors: the library's `load_file`, every tensor copied, which is what owning the memory takes.
* reference: musubi-tuner's reader, every tensor kept, if `--reference` says where to import it from.

Printed are gigabytes of the file per second of CPU time (medians), the ratio to ours, and the peak of resident memory
above the process's own before loading, beside what the result takes. Each process touches as much memory as it will
need and gives it back before it starts: on a virtual machine the host's work for new memory counts as one's own.
"""

from __future__ import annotations

import argparse
import gc
import json
import mmap
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from musubi import FP8Scaled, Int8Scaled
from musubi.architecture import Layout
from musubi.keymap import KeyMap
from musubi.memory.policy import MemoryPolicy, preparation, weight_hook
from musubi.weights.checkpoint import open_checkpoint
from musubi.weights.load import load_into
from musubi.weights.progress import silent

WIDTH, SHARDS = 4096, 4
LARGEST = 2 * WIDTH * WIDTH
SHARD, PICKLED, REHEARSAL = "model-{:05d}-of-00004.safetensors", "model.pth", "rehearsal.safetensors"
NAMES: dict[str, Any] = {
    "keys": KeyMap(()),
    "layout": Layout(blocks=("blocks",), adapters=(), quantise=(r"blocks\..*",)),
}
POLICIES: dict[str, tuple[MemoryPolicy, ...]] = {"FP8Scaled": (FP8Scaled(),), "Int8Scaled": (Int8Scaled(),)}


class Model(nn.Module):
    """Square matrices and small vectors, as transformers have them."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(count))


def main() -> None:
    """Measure in fresh processes, print, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "musubi-bench-load")
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--reference", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=Path("bench_load.json"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.one:
        sys.stdout.write(json.dumps(load_once(options.one, options.folder, options.reference)))
        return
    count = write(options.folder, options.gigabytes)
    found = measured(options)
    sys.stdout.write(shown(found, count))
    facts = {"machine": platform.machine(), "torch": torch.__version__, "rounds": options.rounds, "matrices": count}
    options.json.write_text(json.dumps({**facts, "ways": found}, indent=2), encoding="utf-8")


def write(folder: Path, gigabytes: float) -> int:
    """Write the files unless they are there and return how many matrices they hold."""
    count = max(SHARDS, round(gigabytes * 1e9 / LARGEST))
    folder.mkdir(parents=True, exist_ok=True)
    matrix = (torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(0)) * 0.02).bfloat16()
    tensors = {f"blocks.{i}.weight": matrix.roll(i, 0) for i in range(count)}
    tensors |= {f"blocks.{i}.bias": torch.zeros(WIDTH).bfloat16() for i in range(count)}
    names = list(tensors)
    for shard in range(SHARDS):
        path = folder / SHARD.format(shard + 1)
        if not path.exists():
            save_file({name: tensors[name] for name in names[shard::SHARDS]}, path)
    save_file({name: tensors[name] for name in ("blocks.0.weight", "blocks.0.bias")}, folder / REHEARSAL)
    if not (folder / PICKLED).exists():
        torch.save(tensors, folder / PICKLED)
    return count


def measured(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the medians of fresh processes, every way by turns."""
    ways = ["plain", "safetensors", *(["reference"] if options.reference else []), "pickled", *POLICIES]
    command = [sys.executable, "-m", "tests.bench.bench_load", "--folder", str(options.folder)]
    command += ["--reference", *options.reference] if options.reference else []
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way in ways:
            done = subprocess.run([*command, "--one", way], check=True, stdout=subprocess.PIPE)
            runs[way].append(json.loads(done.stdout.splitlines()[-1]))
    return {way: {key: statistics.median(run[key] for run in own) for key in own[0]} for way, own in runs.items()}


def load_once(way: str, folder: Path, reference: Sequence[str]) -> dict[str, float]:
    """Load in this process and return CPU seconds and bytes."""
    files = [folder / PICKLED] if way == "pickled" else sorted(folder.glob("model-*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    work: Callable[[list[Path]], list[Tensor]] = {
        "safetensors": _library,
        "reference": _reference(reference) if reference else _library,
    }.get(way) or (lambda files: _ours(POLICIES.get(way, ()), files[0]))
    _touch(files, size)
    _rehearse(work, folder)
    base = _base()
    start = time.process_time()
    with silent():
        kept = work(files)
    seconds = time.process_time() - start
    result = sum(tensor.nbytes for tensor in kept)
    return {"seconds": seconds, "file": size, "result": result, "peak": _status("VmHWM") - base, "largest": LARGEST}


def _touch(files: Sequence[Path], size: int) -> None:
    """Have the files in the system's cache, and as much memory as they take at hand."""
    for file in files:
        with file.open("rb") as stream:
            while stream.read(1 << 26):
                pass
    with mmap.mmap(-1, size + (256 << 20), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
        pages.madvise(mmap.MADV_HUGEPAGE)
        for place in range(0, len(pages), mmap.PAGESIZE):
            pages[place] = 1


def _rehearse(work: Callable[[list[Path]], list[Tensor]], folder: Path) -> None:
    """Load one matrix, so that the code which only the first use loads is in memory already."""
    with silent():
        work([folder / REHEARSAL])


def _base() -> int:
    """Return this process's resident bytes and let its peak begin there."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def _ours(policies: tuple[MemoryPolicy, ...], first: Path) -> list[Tensor]:
    with open_checkpoint(first) as checkpoint:
        with init_empty_weights():
            model = Model(len(checkpoint.names()) // 2)
        preparation(policies, **NAMES)(model)
        hook = weight_hook(policies, **NAMES)
        load_into(model, checkpoint, keys=NAMES["keys"], device="cpu", dtype=torch.bfloat16, on_weight=hook)
    return list(model.parameters())


def _library(files: Sequence[Path]) -> list[Tensor]:
    return [tensor.clone() for file in files for tensor in load_file(file).values()]


def _reference(folders: Sequence[str]) -> Callable[[Sequence[Path]], list[Tensor]]:
    sys.path[:0] = folders
    reader = import_module("musubi_tuner.utils.safetensors_utils").MemoryEfficientSafeOpen

    def load(files: Sequence[Path]) -> list[Tensor]:
        kept: list[Tensor] = []
        for file in files:
            with reader(str(file)) as opened:
                kept += [opened.get_tensor(name) for name in opened.keys()]  # noqa: SIM118  # not a dict
        return kept

    return load


def shown(found: dict[str, dict[str, float]], count: int) -> str:
    """Return the results in words."""
    lines = [f"{count} matrices of {WIDTH} x {WIDTH} in bfloat16, {SHARDS} shards, one thread, files cached"]
    ours = found["plain"]["file"] / found["plain"]["seconds"]
    for way, run in found.items():
        speed, over = run["file"] / run["seconds"], (run["peak"] - run["result"]) / run["largest"]
        lines.append(
            f"{way:12}{speed / 1e9:6.2f} GB per CPU-second (plain is {ours / speed:5.2f} x)"
            f"   result {run['result'] / 2**20:5.0f} MiB, peak {run['peak'] / 2**20:5.0f} MiB:"
            f" {over:+6.2f} of the largest tensor more"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
