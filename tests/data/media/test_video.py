from __future__ import annotations

import sys
from collections.abc import Mapping
from fractions import Fraction
from itertools import accumulate, cycle, islice
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from musubi.core.errors import DataError
from musubi.data.media.resize import Pixels
from musubi.data.media.video import probe_clip, read_clip
from tests.data.clips import CLOSED_GROUPS, NO_REORDERING, OPEN_GROUPS, QUICK_VP9, decoded, film, remux
from tests.data.files import pixels

FORMATS = {
    "open.mp4": ("libx264", OPEN_GROUPS),
    "closed.mp4": ("libx264", CLOSED_GROUPS),
    "plain.mov": ("libx264", NO_REORDERING),
    "open.mkv": ("libx264", OPEN_GROUPS),
    "reordered.avi": ("libx264", CLOSED_GROUPS),
    "reordered.flv": ("libx264", CLOSED_GROUPS),
    "refresh.mp4": ("libx264", {"bf": "0", "g": "12", "x264-params": "intra-refresh=1"}),
    "plain.avi": ("mpeg4", {"g": "12"}),
    "asp.avi": ("mpeg4", {"g": "12", "bf": "2"}),
    "stills.avi": ("mjpeg", {}),
    "vp9.webm": ("libvpx-vp9", QUICK_VP9),
    "vp8.webm": ("libvpx", {"g": "12", "lag-in-frames": "16", "auto-alt-ref": "1"}),
    "a.mpg": ("mpeg2video", {"g": "12", "bf": "2"}),
    "a.wmv": ("wmv2", {"g": "12"}),
}


def written(folder: Path, name: str) -> Path:
    codec, options = FORMATS[name]
    return film(folder / name, codec=codec, options=options, pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p")


def same(found: list[Pixels], expected: list[NDArray[np.uint8]]) -> bool:
    return len(found) == len(expected) and all(map(np.array_equal, found, expected))


@pytest.mark.parametrize("name", FORMATS)
def test_a_clip_is_probed_for_its_size_frames_and_rate(tmp_path: Path, name: str) -> None:
    found = probe_clip(written(tmp_path, name))

    assert (found.kind, found.size, found.frames, found.times) == ("video", (64, 48), 70, ())
    assert found.fps == pytest.approx(24)


@pytest.mark.parametrize("name", FORMATS)
def test_frames_are_those_that_decoding_from_the_start_gives_bit_for_bit(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name)
    expected = decoded(path)

    for first in (0, 31, 33, 35, 36, 47, 48, 50, 59, 60, 61, 67):
        wanted = [first, first, first + 2]
        assert same(list(read_clip(path, wanted)), [expected[number] for number in wanted]), first


@pytest.mark.parametrize("name", ["open.mp4", "plain.mov", "plain.avi"])
def test_what_lies_before_the_wanted_frames_is_not_decoded(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name)
    expected = decoded(path)
    with av.open(path) as container:
        places = [(packet.pos or 0, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for place, size in places[8:20]:
        data[place : place + size] = bytes(size)
    path.write_bytes(data)

    assert same(list(read_clip(path, [60, 62])), [expected[60], expected[62]])
    with pytest.raises(DataError, match=rf"{name}: is damaged \(hint: frame \d+ cannot be decoded"):
        list(read_clip(path, range(25)))


def test_what_lies_behind_the_wanted_frames_is_not_decoded(tmp_path: Path) -> None:
    path = film(tmp_path / "a.avi", codec="mpeg4", options={"g": "12"}, size=(160, 120))
    expected = decoded(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))

    assert same(list(read_clip(path, range(5))), expected[:5])


def test_a_frame_that_is_wanted_again_is_given_again(tmp_path: Path) -> None:
    first, second, third = read_clip(film(tmp_path / "a.mp4"), [2, 2, 3])

    assert first is second
    assert not np.array_equal(second, third)


def test_the_file_is_closed_when_reading_is_given_up(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4")
    frames = read_clip(path, range(40, 60))
    next(iter(frames))

    frames.close()  # type: ignore[attr-defined]

    assert str(path) not in {file.path for file in psutil.Process().open_files()}


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("reordered.mp4", "libx264", CLOSED_GROUPS),
        ("plain.mp4", "libx264", NO_REORDERING),
        ("a.mkv", "libx264", CLOSED_GROUPS),
        ("a.webm", "libvpx-vp9", QUICK_VP9),
    ],
)
def test_the_times_of_a_variable_rate_are_told(
    tmp_path: Path, name: str, codec: str, options: Mapping[str, str]
) -> None:
    times = [0, *accumulate(islice(cycle([33, 33, 34, 50, 100]), 69))]
    path = film(tmp_path / name, codec=codec, options=options, times_ms=times)

    found = probe_clip(path)

    assert found.times == pytest.approx([time / 1000 for time in times], abs=1e-3)
    assert found.fps == pytest.approx(69 / (times[-1] / 1000))
    assert same(list(read_clip(path, [50, 51])), decoded(path)[50:52])


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30000, 1001), 60, 7])
@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "b.mp4"])
def test_times_rounded_by_the_container_are_those_of_an_even_rate(
    tmp_path: Path, name: str, rate: Fraction | int
) -> None:
    path = film(tmp_path / "a.mkv" if name == "b.mp4" else tmp_path / name, rate=rate, frames=50)
    path = remux(path, tmp_path / name) if name == "b.mp4" else path

    found = probe_clip(path)

    assert found.times == ()
    assert found.fps == pytest.approx(float(rate), rel=2e-3)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_pictures_at_the_start_that_lack_what_they_build_on_are_no_frames(tmp_path: Path, name: str) -> None:
    whole = film(tmp_path / "whole.mp4", options=OPEN_GROUPS)
    with av.open(whole) as container:
        packets = [(packet.pts or 0, packet.is_keyframe) for packet in container.demux(video=0) if packet.size]
    open_key = next(n for n, (pts, is_key) in enumerate(packets) if n and is_key and packets[n + 1][0] < pts)
    path = remux(whole, tmp_path / name, start=open_key)
    expected = decoded(path)

    assert probe_clip(path).frames == len(expected) < len(packets) - open_key
    assert same(list(read_clip(path, [33, 34])), expected[33:35])


def test_what_an_edit_list_cuts_off_is_no_frame(tmp_path: Path) -> None:
    def shift(packet: Packet[VideoStream]) -> None:
        packet.pts = (packet.pts or 0) - round(30.5 / 24 / packet.time_base)
        packet.dts = (packet.dts or 0) - round(30.5 / 24 / packet.time_base)

    path = remux(film(tmp_path / "whole.mp4"), tmp_path / "a.mp4", change=shift)
    expected = decoded(path)

    assert probe_clip(path).frames == len(expected) < 70
    assert same(list(read_clip(path, [33, 38])), [expected[33], expected[38]])


def test_vp8_pictures_that_others_only_refer_to_are_no_frames(tmp_path: Path) -> None:
    def hide(packet: Packet[VideoStream]) -> None:
        if (packet.pts or 0) % 7 == 0 and not packet.is_keyframe:
            data = bytes(packet)
            packet.update(bytes([data[0] & ~0x10]) + data[1:])

    path = remux(written(tmp_path, "vp8.webm"), tmp_path / "a.webm", change=hide)
    expected = decoded(path)

    assert 40 < probe_clip(path).frames == len(expected) < 70
    assert same(list(read_clip(path, [35, 40])), [expected[35], expected[40]])


@pytest.mark.parametrize("flags", ["frag_keyframe+empty_moov", "faststart"])
@pytest.mark.parametrize("share", [1.0, 0.65])
def test_a_clip_that_breaks_off_has_the_frames_that_are_there(tmp_path: Path, flags: str, share: float) -> None:
    path = film(tmp_path / "a.mp4", muxer={"movflags": flags})
    expected = decoded(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    frames = probe_clip(path).frames

    assert frames == 70 if share == 1.0 else 30 < frames < 70
    assert same(list(read_clip(path, range(frames))), expected[:frames])
    assert same(list(read_clip(path, range(frames - 2, frames))), expected[frames - 2 : frames])
    with pytest.raises(DataError, match=rf"a\.mp4: is truncated \(hint: frame 70 is wanted, but only {frames} "):
        list(read_clip(path, [70]))


@pytest.mark.parametrize(("name", "share"), [("open.mkv", 0.6), ("plain.avi", 0.8), ("vp9.webm", 0.6), ("a.wmv", 0.6)])
def test_a_clip_of_any_format_that_breaks_off_is_read_as_far_as_it_goes_or_named(
    tmp_path: Path, name: str, share: float
) -> None:
    path = written(tmp_path, name)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    frames = probe_clip(path).frames

    assert 20 < frames < 70
    assert len(list(read_clip(path, range(frames - 2)))) == frames - 2
    with pytest.raises(DataError, match=rf"{name}: is (truncated|damaged)"):
        list(read_clip(path, range(frames + 1)))


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_clip_is_shown_as_its_rotation_says(tmp_path: Path, rotation: int) -> None:
    level = decoded(film(tmp_path / "level.mp4", frames=3))[1]
    path = film(tmp_path / "a.mp4", frames=3, rotation=rotation)

    turned = next(iter(read_clip(path, [1])))

    assert np.array_equal(turned, np.rot90(level, k=rotation // 90))
    assert turned.flags.c_contiguous
    assert probe_clip(path).size == ((64, 48) if rotation == 180 else (48, 64))


def test_pixels_become_square(tmp_path: Path) -> None:
    wide = film(tmp_path / "wide.mp4", frames=2, aspect=Fraction(4, 3))
    nearly = film(tmp_path / "nearly.mp4", frames=2, aspect=Fraction(200, 201))

    assert probe_clip(wide).size == (85, 48)
    assert next(iter(read_clip(wide, [0]))).shape == (48, 85, 3)
    assert probe_clip(nearly).size == (64, 48)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "size"),
    [
        ("a.mp4", "libx264", "yuv444p", (37, 21)),
        ("a.mp4", "libx264", "yuv420p10le", (64, 48)),
        ("a.webm", "libvpx-vp9", "yuva420p", (64, 48)),
        ("a.mkv", "ffv1", "gray16le", (64, 48)),
        ("a.mov", "prores_ks", "yuva444p10le", (64, 48)),
        ("a.avi", "rawvideo", "bgr24", (30, 20)),
        ("a.mov", "png", "rgba", (30, 20)),
    ],
)
def test_every_pixel_format_becomes_rgb_of_eight_bits(
    tmp_path: Path, name: str, codec: str, pix_fmt: str, size: tuple[int, int]
) -> None:
    path = film(tmp_path / name, codec=codec, pix_fmt=pix_fmt, size=size, frames=3, options={})

    found = list(read_clip(path, [0, 2]))

    assert probe_clip(path).size == size
    assert [(frame.shape, frame.dtype.name) for frame in found] == [((size[1], size[0], 3), "uint8")] * 2
    assert same(found, [decoded(path)[0], decoded(path)[2]])


def test_a_cover_picture_is_not_the_clip(tmp_path: Path) -> None:
    source, path = film(tmp_path / "source.mp4"), tmp_path / "a.mp4"
    with av.open(source) as read, av.open(path, "w") as container:
        cover = container.add_stream("png")
        cover.width, cover.height, cover.pix_fmt, cover.disposition = 20, 20, "rgb24", Disposition.attached_pic
        stream = container.add_stream_from_template(read.streams.video[0])
        container.mux(cover.encode(av.VideoFrame.from_ndarray(pixels(20, 20), format="rgb24")))
        for packet in read.demux(video=0):
            if packet.size:
                packet.stream = stream
                container.mux(packet)

    assert (probe_clip(path).size, probe_clip(path).frames) == ((64, 48), 70)
    assert same(list(read_clip(path, [40])), [decoded(source)[40]])


def test_several_recordings_in_one_file_are_counted_through(tmp_path: Path) -> None:
    part = written(tmp_path, "a.mpg")
    path = tmp_path / "b.mpg"
    path.write_bytes(part.read_bytes() * 2)

    assert (probe_clip(path).frames, probe_clip(path).times) == (140, ())
    assert same(list(read_clip(path, [90, 139])), [decoded(path)[90], decoded(path)[139]])


@pytest.mark.parametrize("name", ["a clip [1] (ü, 猫) 100%.mp4", "concat:a.mp4", "%03d.mp4", "-i.mp4", "a#b?c.mp4"])
def test_a_name_is_only_a_name(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "win32" and set(name) & set(':?"*'):
        pytest.skip("Windows does not allow this name")
    film(tmp_path / "plain.mp4", frames=2).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)

    assert probe_clip(Path(name)).frames == 2
    assert len(list(read_clip(Path(name), [0, 1]))) == 2


def test_a_title_in_another_encoding_does_not_matter(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", frames=2)
    with av.open(path) as read, av.open(tmp_path / "b.mkv", "w") as container:
        container.metadata["title"] = "TITLE OF IT"
        stream = container.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    path.write_bytes((tmp_path / "b.mkv").read_bytes().replace(b"TITLE OF IT", b"TITL\xc9 \xff IT"))

    assert probe_clip(path).frames == 2


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_a_picture_called_a_clip_is_a_clip_of_one_frame(tmp_path: Path, format: str) -> None:
    path = tmp_path / "a.mp4"
    Image.fromarray(pixels(64, 48)).save(path, format=format)

    assert (probe_clip(path).size, probe_clip(path).frames) == ((64, 48), 1)
    assert np.abs(next(iter(read_clip(path, [0]))).astype(int) - pixels(64, 48)).mean() < 8


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"no media at all" * 50,
        bytes(200_000),
        b"1\n00:00:01,000 --> 00:00:02,000\nsubtitles\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://192.0.2.1/a.ts\n#EXT-X-ENDLIST\n",
        b"\x1aE\xdf\xa3" + bytes(range(256)) * 100,
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mpg"])
def test_what_is_no_clip_is_an_error_that_names_the_file(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(DataError, match=name):
        probe_clip(path)
    with pytest.raises(DataError, match=name):
        list(read_clip(path, [40]))


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.mp4: no such file"):
        probe_clip(tmp_path / "a.mp4")


def test_a_file_of_sound_alone_has_no_frames_to_offer(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())

    with pytest.raises(DataError, match="no video stream"):
        probe_clip(path)


def test_a_codec_that_is_not_known_is_an_error(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", frames=2)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz9").replace(b"avcC", b"zzzC"))

    with pytest.raises(DataError, match=r"a\.mp4: is in a format that is not read"):
        probe_clip(path)


@pytest.mark.parametrize("content", [b"\0\0\0\2\x09\xf0", bytes(40)])
def test_a_file_of_packets_without_frames_is_given_up(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mp4"
    with av.open(film(tmp_path / "b.mp4", frames=2)) as read, av.open(path, "w") as container:
        stream = container.add_stream_from_template(read.streams.video[0])
        for number in range(1500):
            packet = Packet(content)
            packet.stream, packet.time_base = stream, Fraction(1, 24)
            packet.pts = packet.dts = number
            packet.is_keyframe = number == 0
            container.mux(packet)

    with pytest.raises(DataError, match=r"a\.mp4: (is damaged|has no frame)"):
        probe_clip(path)
    with pytest.raises(DataError, match=r"a\.mp4: (is damaged|has no frame)"):
        list(read_clip(path, [0]))


def test_a_list_of_clips_is_no_clip(tmp_path: Path) -> None:
    film(tmp_path / "clip.mp4", frames=3)
    path = tmp_path / "list.mp4"
    path.write_text("ffconcat version 1.0\nfile 'clip.mp4'\n", encoding="utf-8")

    with pytest.raises(DataError, match=r"list\.mp4: is a list of other files"):
        probe_clip(path)
