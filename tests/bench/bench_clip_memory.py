"""How much memory and time it takes to read short windows from the head of a ten-minute 1080p clip.

`python tests/bench/bench_clip_memory.py [--minutes N] [--clip FILE] [--json FILE]` prints, for windows of 1, 25 and 49
frames in the bucket 832x480, the peak of resident memory above that of a process which has just imported everything.
Each is measured in a process of its own; 0 frames stand for the probe alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Self

import attrs
import av
import numpy as np
import psutil
import torch

BUCKET = (832, 480)
WINDOWS = (1, 25, 49)
RATE, GROUP = 30, 150
MIB = 2**20


@attrs.frozen(kw_only=True)
class Cost:
    """What one piece of work took."""

    peak_mib: float
    seconds: float
    result_mib: float


def make_clip(path: Path, *, minutes: float) -> Path:
    """Write a 1080p clip: five seconds of moving waves, encoded once and copied as often as it takes."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "superfast"})
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        stream.codec_context.gop_size = GROUP
        packets = [packet for number in range(GROUP) for packet in stream.encode(_frame(number))]
        packets += stream.encode()
        contents = [(bytes(packet), packet.pts or 0, packet.dts or 0, packet.is_keyframe) for packet in packets]
        step = Fraction(1, RATE) / stream.codec_context.time_base
        for copy in range(round(minutes * 60 * RATE / GROUP)):
            for content, pts, dts, is_keyframe in contents:
                packet = av.Packet(content)
                packet.stream, packet.time_base = stream, stream.codec_context.time_base
                packet.pts, packet.dts = (int(tick + copy * GROUP * step) for tick in (pts, dts))
                packet.is_keyframe = is_keyframe
                container.mux(packet)
    return path


def measure(path: Path, frames: int) -> Cost:
    """Read a window from the head, as building a cache does; 0 frames only probe the clip."""
    from musubi.data.media.loading import load_sample, probe
    from musubi.data.sample import Item, Window

    item = Item(
        name="clip",
        media="clip",
        path=path,
        kind="video",
        captions=("",),
        size=(1920, 1080),
        bucket=BUCKET,
        window=Window(0, frames),
    )
    began = time.perf_counter()
    with Peak() as peak:
        pixels = load_sample(item).pixels if frames else probe(path)
    seconds = time.perf_counter() - began
    held = pixels.nbytes if isinstance(pixels, torch.Tensor) else 0
    return Cost(peak_mib=peak.mib, seconds=seconds, result_mib=held / MIB)


def alone(path: Path, frames: int) -> Cost:
    """Measure in a process of its own, whose peak is that of nothing else."""
    command = [sys.executable, __file__, "--clip", str(path), "--frames", str(frames)]
    result = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8")
    return Cost(**json.loads(result.stdout))


class Peak:
    """Watches how much memory this process holds; the system's own high-water mark starts with the parent's."""

    def __enter__(self) -> Self:
        self._process, self._done = psutil.Process(), threading.Event()
        self._before = self._most = self._process.memory_info().rss
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()

    @property
    def mib(self) -> float:
        """The most that was held at once, above what was held at the beginning."""
        return (self._most - self._before) / MIB

    def _watch(self) -> None:
        while not self._done.wait(0.001):
            self._most = max(self._most, self._process.memory_info().rss)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clip", type=Path, help="another clip instead of the one that is made")
    parser.add_argument("--frames", type=int, help="measure this one window here and print the figures")
    parser.add_argument("--json", type=Path, default=Path("bench_clip_memory.json"))
    options = parser.parse_args()
    if options.frames is not None:
        sys.stdout.write(json.dumps(attrs.asdict(measure(options.clip, options.frames))))
        return
    with tempfile.TemporaryDirectory() as folder:
        clip = options.clip or make_clip(Path(folder) / "clip.mp4", minutes=options.minutes)
        found = {
            "file_mib": clip.stat().st_size / MIB,
            "bucket": BUCKET,
            "costs": {str(frames): attrs.asdict(alone(clip, frames)) for frames in (0, *WINDOWS)},
            "av": av.__version__,
            "machine": platform.machine(),
            "cores": os.cpu_count(),
        }
    options.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


def _frame(number: int) -> av.VideoFrame:
    """Return a moving pattern, made of one small picture."""
    y, x = np.mgrid[0:135, 0:240]
    waves = [127 + 120 * np.sin((x * (c + 1) + y * (3 - c) + 4 * number) / 20) for c in range(3)]
    small = np.stack(waves, axis=2).astype(np.uint8)
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(small.repeat(8, axis=0).repeat(8, axis=1)), format="rgb24")


if __name__ == "__main__":
    main()
