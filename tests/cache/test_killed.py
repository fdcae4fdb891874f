from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from musubi.data.dataset import Dataset
from tests.cache.counting import build, contents

ROOT = Path(__file__).parents[2]
KILLS = 5
SCRIPT = """
import multiprocessing, os, sys, threading, time

from musubi.cache.cache import Cache
from musubi.data.dataset import Dataset
from tests.cache.counting import CountingToy


def build(media, folder, events, delay_s):
    # Build the cache, and end at once, with nothing put in order, delay_s after as many events.
    seen = []
    death = threading.Timer(delay_s, os._exit, (9,))

    def count(event):
        seen.append(event)
        if len(seen) == events:
            death.start()
        time.sleep(0.01)

    dataset = Dataset.from_folder(media, resolution=64, frames=(1, 5, 9))
    Cache(folder, model=CountingToy()).build(dataset, on=[count], progress=False)
    if len(seen) >= events:
        death.join()


if __name__ == "__main__":
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
    media, *builds = sys.argv[1:]
    for folder, events, delay_s in (argument.rsplit("@", 2) for argument in builds):
        child = context.Process(target=build, args=(media, folder, int(events), float(delay_s)))
        child.start()
        child.join()
        print(child.exitcode)
"""


def test_a_build_killed_at_any_moment_ends_as_an_undisturbed_one(tmp_path: Path, media: Path, dataset: Dataset) -> None:
    events: list[object] = []
    build(tmp_path / "counted", dataset, on=[events.append])
    moments = random.Random(0)
    caches = [tmp_path / f"killed{n}" for n in range(KILLS)]
    kills = [f"{cache}@{moments.randrange(1, len(events))}@{moments.uniform(0, 0.02)}" for cache in caches]
    script = tmp_path / "kill.py"
    script.write_text(SCRIPT, encoding="utf-8")

    killer = subprocess.run(
        [sys.executable, script, media, f"{tmp_path / 'undisturbed'}@{len(events) + 1}@0", *kills],
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
    )
    found = [len(list(cache.glob("*.safetensors"))) for cache in caches]
    for cache in caches:
        build(cache, dataset)

    expected = contents(tmp_path / "undisturbed")
    assert killer.stdout.split() == [b"0"] + [b"9"] * KILLS
    assert len(set(found)) > 1, "all were killed at the same moment"
    assert all(contents(cache) == expected for cache in caches)
