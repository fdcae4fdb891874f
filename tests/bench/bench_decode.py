"""How fast media files become pixels in their buckets: ours against the reference's way, on the same files.

`python -m tests.bench.bench_decode [--media FOLDER] [--rounds N] [--json FILE]` prints milliseconds a file and ratios
(theirs / ours) and writes them with the conditions. Both sides run in one process by turns; the rounds' median counts.

* item: decode, resize and crop one file after the other, in CPU time: no waiting, and all threads count.
* whole: what a cache build waits for, in wall time. Theirs is a pool of cores - 1 threads looked at every 0.1 s,
  ours a few threads that decode ahead, in order.

`--media` is a folder with PNG, JPEG and MP4 files to make larger, smaller and more files of; without it they are drawn.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from musubi.batch import Sample
from musubi.data.buckets import Buckets
from musubi.data.media.decoders import Decoders
from musubi.data.media.loading import Samples, probe
from musubi.data.sample import Item, Window
from musubi.data.windows import Chunk, Head, Windows
from tests.data import files

try:
    from tests.bench import reference_decode as theirs
except ModuleNotFoundError as error:
    sys.exit(f"the reference's way needs OpenCV ({error}): pip install opencv-python-headless")

Pixels = NDArray[np.uint8]
_THREADS, _AHEAD = 16, 16


@attrs.define(kw_only=True, slots=False)
class Group:
    """Files of one kind, and what is made of them."""

    name: str
    paths: Sequence[Path]
    buckets: Buckets
    windows: Windows | None = None
    length: int = 1

    @cached_property
    def items(self) -> list[Item]:
        """What is trained: every window of every file."""
        return [item for path in self.paths for item in self._items(path)]

    def _items(self, path: Path) -> Iterator[Item]:
        seen = probe(path)
        windows = (Window(),) if self.windows is None else self.windows.cut(seen.frames, (self.length,))
        for window in windows:
            yield Item(
                name=f"{path.stem}_{window}",
                media=path.stem,
                path=path,
                kind=seen.kind,
                captions=("",),
                size=seen.size,
                bucket=self.buckets.choose(seen.size),
                window=window,
            )

    def ours(self) -> Iterator[Pixels]:
        """Yield the pixels of every item."""
        samples = Samples(self.items)
        return (_pixels(samples.load(item)) for item in self.items)

    def ours_ahead(self) -> Iterator[Pixels]:
        """Yield the pixels of every item, in order, while a few threads decode the next ones."""
        samples = Samples(self.items)
        waiting: deque[Future[Sample]] = deque()
        with Decoders(min(_THREADS, os.cpu_count() or 1)) as decoders:
            for item in self.items:
                waiting.append(decoders.submit(item.path, partial(samples.load, item)))
                if len(waiting) > _AHEAD:
                    yield _pixels(waiting.popleft().result())
            while waiting:
                yield _pixels(waiting.popleft().result())

    def theirs(self) -> list[Callable[[], list[Pixels]]]:
        """Return the reference's work, file by file."""
        return [partial(self._file, path) for path in self.paths]

    def _file(self, path: Path) -> list[Pixels]:
        if self.windows is None:
            return [theirs.picture(path, self.buckets)]
        windows = [item.window for item in self.items if item.path == path]
        return theirs.clip(path, self.buckets, windows, end=self.length if isinstance(self.windows, Head) else None)


def _pixels(sample: Sample) -> Pixels:
    assert sample.pixels is not None
    return np.asarray(sample.pixels.numpy(), np.uint8)


def measure(group: Group, rounds: int) -> dict[str, Any]:
    """Return milliseconds a file of both ways, alone and whole, and how many values of their pixels differ."""
    work, threads = group.theirs(), max(1, (os.cpu_count() or 1) - 1)
    pairs = zip(group.ours(), (window for one in work for window in one()), strict=True)
    differing = sum(int((mine != other).sum()) for mine, other in pairs)
    ways: dict[str, tuple[Callable[[], float], Callable[[], object]]] = {
        "item_ours": (time.process_time, lambda: deque(group.ours(), maxlen=0)),
        "item_theirs": (time.process_time, lambda: deque((one() for one in work), maxlen=0)),
        "whole_ours": (time.perf_counter, lambda: deque(group.ours_ahead(), maxlen=0)),
        "whole_theirs": (time.perf_counter, lambda: deque(theirs.polled(work, threads=threads), maxlen=0)),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (clock, way) in ways.items():
            began = clock()
            way()
            times[name].append((clock() - began) * 1e3 / len(work))
    found = {f"{name}_ms": statistics.median(values) for name, values in times.items()}
    ratios = {f"{kind}_ratio": found[f"{kind}_theirs_ms"] / found[f"{kind}_ours_ms"] for kind in ("item", "whole")}
    return {"files": len(work), "items": len(group.items), "differing_values": differing, **found, **ratios}


def groups(folder: Path, media: Path | None) -> list[Group]:
    """Write the files and return what is to be done with them."""
    pictures = sorted(p for p in media.iterdir() if p.suffix in {".png", ".jpg"}) if media else []
    drawn = [Image.open(path).convert("RGB") for path in pictures] or [Image.fromarray(files.pixels(640, 480))]
    photos = [_photo(drawn[n % len(drawn)], folder / f"photo_{n}.jpg", seed=n) for n in range(8)]
    small = [_small(drawn[n % len(drawn)], folder / f"small_{n}", number=n) for n in range(60)]
    clips = sorted(media.glob("*.mp4")) if media else []
    clips = clips or [files.clip(folder / "clip.mp4", frames=128, size=(1280, 720), caption=None)]
    several = [_linked(clips[n % len(clips)], folder / f"clip_{n}.mp4") for n in range(4)]
    video = Buckets(resolution=(832, 480))
    return [
        Group(name="photos, 12 MP to 1 MP", paths=photos, buckets=Buckets(resolution=(1024, 1024))),
        Group(name="small pictures to 512 x 512", paths=small, buckets=Buckets(resolution=(512, 512))),
        Group(name="clips, the first 25 frames", paths=several, buckets=video, windows=Head(), length=25),
        Group(name="clips, chunks of 25 frames", paths=several, buckets=video, windows=Chunk(), length=25),
    ]


def _photo(image: Image.Image, path: Path, *, seed: int) -> Path:
    """Write a picture as a camera would, with its noise."""
    large = np.asarray(image.resize((4000, 3000)))
    noise = np.random.default_rng(seed).normal(0, 4, (3000, 4000, 1))
    Image.fromarray(np.clip(large + noise, 0, 255).astype(np.uint8)).save(path, quality=92)
    return path


def _small(image: Image.Image, stem: Path, *, number: int) -> Path:
    path = stem.with_suffix((".png", ".jpg")[number % 2])
    image.resize(((640, 427), (512, 512), (451, 300))[number % 3]).save(path)
    return path


def _linked(clip: Path, path: Path) -> Path:
    path.write_bytes(clip.read_bytes())
    return path


def shown(name: str, found: dict[str, Any]) -> str:
    """Return one group's results in words."""
    lines = [f"{name} ({found['files']} files, {found['items']} items, {found['differing_values']} values differ)"]
    for kind in ("item", "whole"):
        ours, other, ratio = (found[f"{kind}_{side}"] for side in ("ours_ms", "theirs_ms", "ratio"))
        lines.append(f"  {kind:5}: {ours:8.1f} ms ours, {other:8.1f} ms theirs: {ratio:.2f} x")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("bench_decode.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    theirs.cv2.setNumThreads(1)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for group in groups(Path(folder), options.media):
            results[group.name] = measure(group, options.rounds)
            sys.stdout.write(shown(group.name, results[group.name]))
    everything = {
        f"{side}_ms": sum(found[f"whole_{side}_ms"] * found["files"] for found in results.values())
        for side in ("ours", "theirs")
    }
    ratio = everything["theirs_ms"] / everything["ours_ms"]
    sys.stdout.write(f"everything, whole: {ratio:.2f} x\n")
    facts = {
        "ratio": ratio,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "opencv": theirs.cv2.__version__,
        "rounds": options.rounds,
    }
    options.json.write_text(json.dumps({**facts, "groups": results}, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
