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
import multiprocessing, sys, time

from musubi.cache.cache import Cache
from musubi.data.dataset import Dataset
from tests.cache.counting import CountingToy


def build(media, folder):
    dataset = Dataset.from_folder(media, resolution=64, frames=(1, 5, 9))
    Cache(folder, model=CountingToy()).build(dataset, on=[lambda event: time.sleep(0.01)], progress=False)


if __name__ == "__main__":
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
    media, whole, *killed = sys.argv[1:]
    began = time.monotonic()
    child = context.Process(target=build, args=(media, whole))
    child.start()
    child.join()
    took_s = time.monotonic() - began
    for folder, moment in (argument.rsplit("@", 1) for argument in killed):
        child = context.Process(target=build, args=(media, folder))
        child.start()
        time.sleep(float(moment) * took_s)
        child.kill()
        child.join()
        print("killed" if child.exitcode else "finished")
"""


def test_a_build_killed_at_any_moment_ends_as_an_undisturbed_one(tmp_path: Path, media: Path, dataset: Dataset) -> None:
    moments = random.Random(0)
    caches = [tmp_path / f"killed{n}" for n in range(KILLS)]
    arguments = [f"{cache}@{moments.uniform(0.1, 0.9)}" for cache in caches]
    script = tmp_path / "kill.py"
    script.write_text(SCRIPT, encoding="utf-8")

    killer = subprocess.run(
        [sys.executable, script, media, tmp_path / "undisturbed", *arguments],
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
    )
    found = [len(list(cache.glob("*.safetensors"))) for cache in caches]
    for cache in caches:
        build(cache, dataset)

    expected = contents(tmp_path / "undisturbed")
    assert killer.stdout.split().count(b"killed") >= KILLS - 1, "the build was not slow enough"
    assert len(set(found)) > 1, "all were killed at the same moment"
    assert all(contents(cache) == expected for cache in caches)
