"""How long building a cache takes: the first time, with nothing changed, and with one caption edited.

`python tests/bench/bench_cache.py [--images N] [--side PIXELS] [--kills N] [--profile] [--json FILE]` prints the times
and their ratios and writes them with the conditions. With `--kills` a build is killed so many times at random moments,
each time followed by a build, and the result compared with that of an undisturbed one.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import platform
import pstats
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from musubi import Event, Progress, WanCache, WanDataset
from musubi.testing.checkpoints import tiny_wan

ROOT = Path(__file__).parents[2]
_OLD_S = 3600
"""Files are given this age: a real folder was not written in the second before it is built from."""


def write_pictures(folder: Path, count: int, side: int) -> None:
    """Write so many small pictures of different content, each with a caption."""
    folder.mkdir()
    source, then = np.random.default_rng(0), time.time() - _OLD_S
    for number in range(count):
        path = folder / f"{number:05d}.png"
        coarse = source.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(path, compress_level=1)
        path.with_suffix(".txt").write_text(f"picture number {number}", encoding="utf-8")
        os.utime(path, (then, then))


def build(cache: WanCache, data: WanDataset, *, profile: bool = False) -> dict[str, float]:
    """Build and return the seconds it took, by the clock and of CPU, and how much was encoded of each stage."""
    heard: list[Event] = []
    profiler = cProfile.Profile()
    began, worked = time.perf_counter(), time.process_time()
    if profile:
        profiler.enable()
    cache.build(data, on=[heard.append], progress=False)
    profiler.disable()
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - worked
    if profile:
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(25)
    encoded = [event.task for event in heard if isinstance(event, Progress) and event.task in {"latents", "text"}]
    return {"s": seconds, "cpu_s": cpu_s, "latents": encoded.count("latents"), "text": encoded.count("text")}


def measure(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Return the times of a first, an unchanged and a slightly changed build."""
    wan = tiny_wan(folder / "model")
    write_pictures(folder / "media", options.images, options.side)
    data = WanDataset.from_folder(folder / "media", resolution=options.side)
    cache = WanCache(folder / "cache", model=wan)
    first = build(cache, data, profile=options.profile)
    second = build(cache, data, profile=options.profile)
    (folder / "media" / "00003.txt").write_text("another caption", encoding="utf-8")
    edited = build(cache, data)
    began = time.perf_counter()
    assert not cache.verify(progress=False)
    return {
        "first": first,
        "unchanged": second,
        "one_caption_edited": edited,
        "verify_s": time.perf_counter() - began,
        "unchanged_to_first": second["s"] / first["s"],
        "manifest_bytes": (cache.path / "manifest.json").stat().st_size,
    }


CHILD = """
import sys, tempfile
from musubi import Wan, WanCache, WanDataset

model, few, media, folder, side = sys.argv[1:]
wan = Wan.load(model)
with tempfile.TemporaryDirectory() as warm:  # imports take longer than the build
    WanCache(warm, model=wan).build(WanDataset.from_folder(few, resolution=int(side)), progress=False)
data = WanDataset.from_folder(media, resolution=int(side))
cache = WanCache(folder, model=wan)
sys.stdout.write("ready\\n")
sys.stdout.flush()
cache.build(data, progress=False)
"""


def kill(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Kill builds at random moments and return how far they had come, and whether the end result was the same."""
    wan = tiny_wan(folder / "model")
    media, side = folder / "media", min(options.side, 64)
    write_pictures(media, 400, side)
    write_pictures(folder / "few", 2, side)
    build(WanCache(folder / "warm", model=wan), WanDataset.from_folder(folder / "few", resolution=side))
    data = WanDataset.from_folder(media, resolution=side)
    wan.save(folder / "wan.json")
    took = build(WanCache(folder / "undisturbed", model=wan), data)["s"]
    expected = contents(folder / "undisturbed")
    moments, left, same, killed = random.Random(0), list[int](), 0, 0
    for number in range(options.kills):
        cache = folder / f"killed{number}"
        command = [sys.executable, "-c", CHILD, *map(str, (folder / "wan.json", folder / "few", media, cache, side))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(moments.uniform(0, 0.95) * took)
            child.kill()
        killed += child.returncode != 0
        left.append(len(list(cache.glob("*.safetensors"))) if cache.exists() else 0)
        WanCache(cache, model=wan).build(data, progress=False)
        same += contents(cache) == expected
    return {
        "kills": killed,
        "of_builds": options.kills,
        "entries_when_killed": left,
        "entries": 2 * 400,
        "equal_in_the_end": same,
    }


def contents(folder: Path) -> dict[str, bytes]:
    """Return a cache's files but for the lock and the memory of source files, which holds times."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in {".lock", ".files.json"}}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", type=Path, default=Path("bench_cache.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = kill(Path(folder), options) if options.kills else measure(Path(folder), options)
    found |= {"images": options.images, "side": options.side, "torch": torch.__version__}
    found |= {"machine": platform.machine(), "cpus": os.cpu_count(), "threads": torch.get_num_threads()}
    options.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    sys.stdout.write(f"{json.dumps(found, indent=2)}\n")


if __name__ == "__main__":
    main()
