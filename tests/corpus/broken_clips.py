"""Clips that are damaged, cut off or something else altogether."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

from musubi.data.dataset import Dataset
from musubi.data.sources.folder import Folder
from musubi.data.windows import Full
from tests.corpus.case import Case, Fault, Kept, dataset
from tests.corpus.paint import (
    clip_bytes,
    noise,
    overwritten,
    picture_bytes,
    plain_clip,
    quarters,
    write_bytes,
    write_caption,
)
from tests.data.files import pixels

_CLIP = "odd.mp4"
_LONG = 21
"""How many frames a clip has that is cut or damaged behind those that are wanted."""
_UNAWARE = frozenset({"odd.mkv", "odd.webm"})
"""Files that do not tell how many frames they should have, and in which frames are cut off without a trace."""


def _whole(root: Path) -> Dataset:
    """Return the folder with as much of each clip as there is."""
    return dataset(Folder(root), windows=Full())


def _long(root: Path) -> Dataset:
    return dataset(Folder(root), frames=(_LONG,), keep_short=True)


@cache
def busy(container: str = "mp4", codec: str = "libx264", *, front: bool = False, **options: str) -> bytes:
    """Return a clip with so much on it that its frames are far larger than its index; ``front`` puts that first."""
    frames = [np.roll(pixels(96, 96, seed=1), 7 * number, axis=1) for number in range(_LONG)]
    muxer = {"movflags": "faststart"} if front else {}
    options = {"g": "5", **options}
    return clip_bytes(container, codec=codec, frames=frames, size=(96, 96), options=options, muxer=muxer)


def _named(name: str, content: bytes | Callable[[], bytes], message: str, *, file: str = _CLIP) -> Case:
    """Return the case of a file of which the first look shows that it is no clip."""

    def write(root: Path) -> None:
        write_bytes(root / file, content if isinstance(content, bytes) else content())

    return Case(name=name, write=write, reported={file: message})


def _deeper(name: str, content: Callable[[], bytes], read: Callable[[Path], Dataset], kept: Kept) -> Case:
    """Return the case of a clip that nothing but decoding it shows to be damaged."""

    def write(root: Path) -> None:
        write_bytes(root / kept.path, content())

    broken = {kept.path: Fault("damaged")}
    return Case(name=name, write=write, read=read, kept=[kept], broken=broken)


def _as_far(name: str, content: Callable[[], bytes], frames: int, *, file: str = _CLIP) -> Case:
    """Return the case of a clip of which so much is taken as is there."""

    def write(root: Path) -> None:
        write_bytes(root / file, content())

    kept = Kept(file, size=(96, 96), frames=tuple(range(frames)))
    noted = {} if file in _UNAWARE else {file: "is truncated"}
    return Case(name=name, write=write, read=_whole, kept=[kept], noted=noted)


def _part(content: bytes, share: float) -> bytes:
    return content[: int(share * len(content))]


def _sound_only(root: Path) -> None:
    with av.open(root / _CLIP, "w") as output:
        stream = output.add_stream("aac", rate=8000)
        for _ in range(5):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 8000
            output.mux(stream.encode(silence))
        output.mux(stream.encode())
    write_caption(root / _CLIP)


def _cover_only(root: Path) -> None:
    with av.open(root / _CLIP, "w") as output:
        cover = output.add_stream("mjpeg", rate=8)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        output.mux(cover.encode(av.VideoFrame.from_ndarray(np.asarray(quarters()), format="rgb24")))
        output.mux(cover.encode())
    write_caption(root / _CLIP)


def _no_frames(root: Path) -> None:
    """Write an MP4 that describes a stream of pictures and holds none."""
    with av.open(root / _CLIP, "w", options={"movflags": "frag_keyframe+empty_moov"}) as output:
        stream = output.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        output.start_encoding()
    write_caption(root / _CLIP)


def _without_index() -> bytes:
    content = plain_clip()
    return content[: content.index(b"moov") - 4]


def _lying_index() -> bytes:
    """Return an MP4 whose index has each frame behind the end of the file."""
    content = bytearray(plain_clip())
    start = content.index(b"stco") + 12
    content[start : start + 4] = (2**31).to_bytes(4, "big")
    return bytes(content)


def _two_sizes() -> bytes:
    """Return a stream of MPEG-2 whose pictures grow in the middle."""
    small = clip_bytes("mpeg2video", codec="mpeg2video", rate=24, size=(64, 64), options={})
    return small + clip_bytes("mpeg2video", codec="mpeg2video", rate=24, size=(96, 96), options={})


def _hole() -> bytes:
    """Return a clip with zeros in its middle, as an interrupted download leaves them."""
    content = busy()
    half, third = len(content) // 2, len(content) // 3
    return content[:half] + bytes(third) + content[half + third :]


def _vp8_cut() -> bytes:
    return _part(busy("webm", "libvpx", deadline="realtime"), 0.5)


_WHOLE = Kept(_CLIP, size=(96, 96), frames=tuple(range(_LONG)))
_LIST = b"ffconcat version 1.0\nfile 'steady.mp4'\n"
_PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nsteady.mp4\n#EXT-X-ENDLIST\n"
_REMOTE = _PLAYLIST.replace(b"steady.mp4", b"http://127.0.0.1:9/steady.ts")
_SESSION = (
    b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
)

CASES = (
    _named("an empty clip is named", b"", "damaged"),
    _named("zeros called .mp4 are named", bytes(5000), "damaged"),
    _named("noise called .mp4 is named", noise(5000), "damaged"),
    _named("text called .mp4 is named", b"a film about a cat\n" * 99, "damaged"),
    _named("a web page called .mp4 is named", b"<!DOCTYPE html><html>404</html>", "damaged"),
    _named("a PNG called .mp4 is no clip", picture_bytes(), "too short"),
    _named("a JPEG called .mov is no clip", picture_bytes("jpeg"), "too short", file="odd.mov"),
    _named("a list of files called .mp4 does not lead to these", _LIST, "list of other files"),
    _named("a playlist called .mp4 does not lead to other files", _PLAYLIST, "damaged"),
    _named("a playlist called .mp4 does not lead into the net", _REMOTE, "damaged"),
    _named("a description of a session called .mp4 does not listen", _SESSION, "damaged"),
    Case(name="sound alone is named", write=_sound_only, reported={_CLIP: "no video stream"}),
    Case(name="a cover picture alone is named", write=_cover_only, reported={_CLIP: "no video stream"}),
    Case(name="a clip of no frames is named", write=_no_frames, reported={_CLIP: "no frame"}),
    _named("a clip cut off in its header is named", plain_clip()[:40], "damaged"),
    _named("a clip of which the index is missing is named", _without_index, "damaged"),
    _named("a clip whose index leads nowhere is named", _lying_index, "no frame"),
    _named("a clip of which the first frame is damaged is named", lambda: overwritten(busy(), 0.1, 0.15), "damaged"),
    _named(
        "an AVI cut off before its frames is named", lambda: _part(busy("avi", "mpeg4"), 0.3), "damaged", file="odd.avi"
    ),
    _named("a clip cut off after too few frames is named", lambda: _part(busy(front=True), 0.3), "too short"),
    _as_far("an MP4 cut in the middle is taken as far as it goes", lambda: _part(busy(front=True), 0.5), 5),
    _as_far(
        "a Matroska cut in the middle is taken as far as it goes", lambda: _part(busy("mkv"), 0.5), 9, file="odd.mkv"
    ),
    _as_far("a WebM cut in the middle is taken as far as it goes", _vp8_cut, 9, file="odd.webm"),
    _as_far(
        "a Flash video cut in the middle is taken as far as it goes",
        lambda: _part(busy("flv", "flv"), 0.5),
        5,
        file="odd.flv",
    ),
    _as_far(
        "an AVI cut near its end is taken as far as it goes",
        lambda: _part(busy("avi", "mpeg4"), 0.9),
        17,
        file="odd.avi",
    ),
    _as_far(
        "a Matroska cut in its last frame is taken as far as it goes",
        lambda: _part(busy("mkv"), 0.93),
        17,
        file="odd.mkv",
    ),
    Case(
        name="damage behind the frames that are wanted does not matter",
        write=lambda root: write_bytes(root / _CLIP, overwritten(busy(), 0.5, 0.55)),
        kept=[Kept(_CLIP, size=(96, 96), frames=(0, 1, 2, 3, 4))],
    ),
    _deeper(
        "damage in the middle of a clip is found by decoding",
        lambda: overwritten(busy(), 0.5, 0.55),
        _long,
        _WHOLE,
    ),
    _deeper("a hole in a clip is found by decoding", _hole, _long, _WHOLE),
)
"""Damage of clips, by what a person expects: what can be seen whole is trained, all else is named."""
