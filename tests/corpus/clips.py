"""Clips of all kinds that a person expects to be trained."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import attrs
import av
import numpy as np
from av.stream import Disposition

from musubi.data.dataset import Dataset
from musubi.data.rates import EveryFrame
from musubi.data.sources.folder import Folder
from tests.corpus.case import CORNERS, FRAMES, Case, Kept, clip, dataset
from tests.corpus.paint import (
    clip_bytes,
    noise,
    numbered,
    plain_clip,
    quarters,
    write_bytes,
    write_caption,
    write_clip,
)
from tests.data.clips import remux

_GROUPS: Mapping[str, str] = {"bf": "2", "g": "6", "x264-params": "scenecut=0:b-adapt=0"}
_OPEN: Mapping[str, str] = {"bf": "2", "g": "6", "x264-params": "open-gop=1:scenecut=0:b-adapt=0"}
_VP: Mapping[str, str] = {"deadline": "realtime", "cpu-used": "8"}


def _third(path: str) -> Kept:
    """Return the expectation of a clip that is three times as fast as the model."""
    return clip(path, frames=(0, 3, 6, 9, 12), numbers=(0, 3, 6, 9, 12))


def _every(root: Path) -> Dataset:
    return dataset(Folder(root), rate=EveryFrame())


def _film(name: str, file: str, kept: Kept | None = None, **options: Any) -> Case:
    """Return the case of a clip that is trained; ``options`` are those of ``write_clip``."""
    return Case(
        name=name,
        write=lambda root: write_clip(root / file, **options),
        kept=[clip(file) if kept is None else kept],
    )


def _content(name: str, file: str, content: bytes, kept: Kept | None = None) -> Case:
    return Case(name=name, write=lambda root: write_bytes(root / file, content), kept=[kept or clip(file)])


def _turned(degrees: int) -> Case:
    """Return the case of a clip that is stored lying and shown upright, as telephones write them."""
    upright = quarters((48, 80))
    stored = np.asarray(upright.rotate(-degrees, expand=True))
    size = (stored.shape[1], stored.shape[0])
    kept = clip("odd.mp4", size=(48, 80), corners=CORNERS, tolerance=16, numbers=None)
    return _film(
        f"a clip that is to be turned by {degrees} degrees is turned",
        "odd.mp4",
        kept,
        frames=[stored] * FRAMES,
        size=size,
        rotation=degrees,
    )


def _transparent(root: Path) -> None:
    """Write a clip with alpha, of which nothing can be seen."""
    with av.open(root / "odd.webm", "w") as output:
        stream = output.add_stream("libvpx-vp9", rate=8, options=dict(_VP))
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuva420p"
        for number in range(FRAMES):
            values = np.concatenate([numbered(number), np.zeros((64, 64, 1), np.uint8)], axis=2)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(values, format="rgba")))
        output.mux(stream.encode())
    write_caption(root / "odd.webm")


def _with_cover(root: Path) -> None:
    """Write a clip behind the picture that players show for it."""
    with av.open(root / "odd.mp4", "w") as output, av.open(str(write_clip(root / "tmp.mkv"))) as source:
        cover = output.add_stream("mjpeg", rate=8)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        stream = output.add_stream_from_template(source.streams.video[0])
        picture = av.VideoFrame.from_ndarray(np.asarray(quarters()), format="rgb24")
        output.mux([*cover.encode(picture), *cover.encode()])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    (root / "tmp.mkv").unlink()
    (root / "tmp.txt").unlink()
    write_caption(root / "odd.mp4")


def _with_sound(root: Path) -> None:
    """Write a clip with sound in front of the pictures."""
    with av.open(root / "odd.mkv", "w") as output:
        sound = output.add_stream("aac", rate=8000)
        stream = output.add_stream("libx264", rate=8, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        for number in range(FRAMES):
            output.mux(sound.encode(silence))
            output.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(number), format="rgb24")))
        output.mux([*stream.encode(), *sound.encode()])
    write_caption(root / "odd.mkv")


def _open_start(root: Path) -> None:
    """Write a clip cut out of a longer one, which begins with frames that lack what they are built on."""
    source = write_clip(root / "tmp.mp4", frames=20, options=_OPEN)
    remux(source, root / "odd.mkv", start=_second_key(source))
    for path in (source, source.with_suffix(".txt")):
        path.unlink()
    write_caption(root / "odd.mkv")


def _second_key(path: Path) -> int:
    with av.open(path) as container:
        keys = [n for n, packet in enumerate(container.demux(video=0)) if packet.size and packet.is_keyframe]
    return keys[1]


def _at(name: str, times_ms: tuple[int, ...], frames: tuple[int, ...]) -> Case:
    """Return the case of a clip whose frames are shown at these times, of which those are trained."""
    kept = clip("odd.mkv", frames=frames, numbers=frames)
    return _film(name, "odd.mkv", kept, frames=len(times_ms), times_ms=times_ms)


def _paced(name: str, rate: Fraction | int, count: int, frames: tuple[int, ...]) -> Case:
    """Return the case of a clip of another rate than the model's 8 frames a second."""
    kept = clip("odd.mp4", frames=frames, numbers=tuple(number // 5 for number in frames))
    pictures = [numbered(number // 5) for number in range(count)]
    case = _film(name, "odd.mp4", kept, frames=pictures, rate=rate)
    return attrs.evolve(case, noted={"odd.mp4": "retimed"})


def _too_fast(root: Path) -> object:
    return write_clip(root / "odd.mp4", rate=1000)


CASES = (
    _film("a clip with reordered frames is read in the order of showing", "odd.mp4", options=_GROUPS),
    _film("a clip with open groups of pictures is read", "odd.mp4", options=_OPEN),
    Case(
        name="of a clip that begins with frames that lack their past those are taken that do not",
        write=_open_start,
        kept=[clip("odd.mkv", numbers=(6, 7, 8, 9, 10))],
    ),
    _film("a clip of 10 bits is read", "odd.mp4", pix_fmt="yuv420p10le"),
    _film("a clip with full colours is read", "odd.mp4", pix_fmt="yuv444p"),
    _film("a grey clip is read", "odd.mp4", clip("odd.mp4", numbers=None), pix_fmt="gray"),
    _film("HEVC of 10 bits is read", "odd.mp4", codec="libx265", pix_fmt="yuv420p10le"),
    _film("VP8 is read", "odd.webm", codec="libvpx", options=_VP),
    _film("VP9 is read", "odd.webm", codec="libvpx-vp9", options=_VP),
    _film("MPEG-4 in AVI is read", "odd.avi", codec="mpeg4", options={"bf": "2"}),
    _film("H.264 in AVI, which knows no times of showing, is read", "odd.avi", options=_GROUPS),
    _film("pictures in MOV are read", "odd.mov", codec="mjpeg", pix_fmt="yuvj420p", options={}),
    _film("ProRes is read", "odd.mov", codec="prores_ks", pix_fmt="yuv422p10le", options={}),
    _film("MPEG-2 is read", "odd.mpg", codec="mpeg2video", rate=24, options={}, frames=15, kept=_third("odd.mpg")),
    _film("Windows Media is read", "odd.wmv", codec="wmv2", options={}),
    _film("Flash video is read", "odd.flv", codec="flv", options={}),
    _film("FFV1 is read", "odd.mkv", codec="ffv1", options={}),
    _film("an ending in capitals is an ending of clips, too", "ODD.MP4"),
    _film("an MP4 in fragments is read", "odd.mp4", muxer={"movflags": "frag_keyframe+empty_moov"}),
    _film("an MP4 with its index in front is read", "odd.mp4", muxer={"movflags": "faststart"}),
    _film("a clip of odd sides is read", "odd.mp4", clip("odd.mp4", size=(63, 47)), size=(63, 47), pix_fmt="yuv444p"),
    _film("a clip of two pixels is enlarged", "odd.mp4", clip("odd.mp4", size=(2, 2)), size=(2, 2)),
    _film("a strip of a clip is fitted", "odd.mp4", clip("odd.mp4", size=(1024, 4)), size=(1024, 4)),
    *map(_turned, (90, 180, 270)),
    _film("a clip with broad pixels is shown broad", "odd.mp4", clip("odd.mp4"), size=(32, 64), aspect=Fraction(2)),
    _film("an interlaced clip is trained as it is", "odd.mp4", options={"x264-params": "interlaced=1"}),
    Case(name="alpha of a clip is dropped", write=_transparent, kept=[clip("odd.webm")]),
    Case(name="the cover picture of a clip is not the clip", write=_with_cover, kept=[clip("odd.mp4")]),
    Case(name="sound in a clip does not matter", write=_with_sound, kept=[clip("odd.mkv")]),
    _content("a WebM called .mp4 is read for what it is", "odd.mp4", clip_bytes("webm", codec="libvpx", options=_VP)),
    _content("an MP4 called .avi is read for what it is", "odd.avi", plain_clip()),
    _content("an AVI called .mov is read for what it is", "odd.mov", clip_bytes("avi", codec="mpeg4", options={})),
    Case(
        name="a bare stream of H.264, which knows no times at all, is read frame by frame",
        write=lambda root: write_bytes(root / "odd.mp4", clip_bytes("h264")),
        read=_every,
        kept=[clip("odd.mp4")],
    ),
    _content("noise behind the end of a clip does not matter", "odd.mp4", plain_clip() + noise(999)),
    _content("of two MP4 in one file the first counts", "odd.mp4", plain_clip() + plain_clip()),
    _at("a clip with uneven times is shown at its real speed", (0, 125, 250, 500, 1000), (0, 1, 2, 2, 3)),
    _at("a clip that stands still for long is shown so", (0, 125, 1000), (0, 1, 1, 1, 1)),
    _at("a clip that begins late begins with its first frame", tuple(range(90_000, 90_625, 125)), (0, 1, 2, 3, 4)),
    _paced("a clip of 24 frames a second is thinned", 24, 15, (0, 3, 6, 9, 12)),
    _paced("a clip of 23.976 frames a second is thinned as one of 24", Fraction(24000, 1001), 15, (0, 3, 6, 9, 12)),
    _paced("a clip of 120 frames a second is thinned", 120, 75, (0, 15, 30, 45, 60)),
    _paced("a clip of 2 frames a second shows frames twice", 2, 2, (0, 0, 0, 1, 1)),
    _paced("a clip of a frame a minute is shown for minutes", Fraction(1, 60), 2, (0, 0, 0, 0, 0)),
    Case(
        name="a clip that is over in a moment at its own rate is named",
        write=_too_fast,
        reported={"odd.mp4": "too short"},
    ),
    Case(
        name="a clip that is over in a moment is trained frame by frame if one says so",
        write=_too_fast,
        read=_every,
        kept=[clip("odd.mp4")],
    ),
    Case(
        name="a clip of one frame is too short",
        write=lambda root: write_clip(root / "odd.mp4", frames=1),
        reported={"odd.mp4": "too short"},
    ),
    Case(
        name="a clip of one frame is kept if one wants short ones",
        write=lambda root: write_clip(root / "odd.mp4", frames=1),
        read=lambda root: dataset(Folder(root), keep_short=True),
        kept=[clip("odd.mp4", frames=(0,), numbers=(0,))],
    ),
)
"""Clips, by what a player shows."""
