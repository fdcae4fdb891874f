from __future__ import annotations

import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from musubi.core.errors import DataError
from musubi.data.media import load_pixels, load_sample, probe, read_image
from musubi.data.sample import Item, Window
from tests.data.files import clip, picture, pixels

BUCKET = (32, 32)


def test_a_clip_is_probed_for_its_size_frames_and_rate(tmp_path: Path) -> None:
    found = probe(clip(tmp_path / "a.mp4", frames=7, size=(64, 48)))

    assert (found.kind, found.size, found.frames, found.fps) == ("video", (64, 48), 7, 8.0)


def test_frames_are_counted_up_to_the_horizon_where_the_container_does_not_say(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mkv", frames=12)

    assert probe(path).frames == 12
    assert probe(path, horizon=5).frames == 5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_is_seen_and_read_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels(64, 48)).save(path, exif=exif, quality=95)

    size = probe(path).size

    assert read_image(path).shape[1::-1] == size == ((64, 48) if orientation <= 4 else (48, 64))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_pictures_of_all_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    grey = np.full((8, 8), 51 * 257, np.uint16)
    image = Image.fromarray(grey) if mode == "I;16" else Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode)
    image.save(path)

    read = read_image(path)

    assert read.shape == (8, 8, 3)
    assert read.dtype == np.uint8
    assert (read == (51 if mode == "I;16" else 255)).all()


def test_alpha_is_dropped_without_a_background(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGBA", (4, 4), (10, 20, 30, 0)).save(path)

    assert (read_image(path) == (10, 20, 30)).all()


def test_a_window_holds_the_frames_it_names(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", frames=9)

    loaded = load_pixels(path, window=Window(3, 4), bucket=BUCKET)

    assert loaded.shape == (4, 32, 32, 3)
    assert loaded.dtype == torch.uint8
    red = loaded[..., 0].float().mean(dim=(1, 2))
    assert torch.allclose(red, torch.tensor([60.0, 80.0, 100.0, 120.0]), atol=12)


def test_a_head_window_is_read_though_the_rest_of_the_file_is_damaged(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.avi", frames=120, codec="mpeg4")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + b"\0" * (len(data) // 2))

    assert load_pixels(path, window=Window(0, 5), bucket=BUCKET).shape[0] == 5


def test_a_window_takes_memory_for_its_own_frames_only(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", frames=80, size=(256, 256))
    tracemalloc.start()

    load_pixels(path, window=Window(0, 3), bucket=(128, 128))

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * 256 * 256 * 3, "a dozen float copies of one frame at the most"


def test_a_truncated_clip_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mkv", frames=40, size=(128, 128))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])

    with pytest.raises(DataError, match=r"a\.mkv: is (truncated|damaged)"):
        load_pixels(path, window=Window(0, 40), bucket=BUCKET)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.mp4", "a.mkv", "a.avi"])
@pytest.mark.parametrize("content", [b"", b"\0", b"no media at all" * 50])
def test_what_is_not_media_is_an_error_that_names_the_file(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(DataError, match=name):
        probe(path)


def test_a_truncated_picture_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", size=(200, 200))
    path.write_bytes(path.read_bytes()[:2000])

    with pytest.raises(DataError, match=r"a\.png: is damaged"):
        load_pixels(path, window=Window(), bucket=BUCKET)


def test_a_file_of_sound_alone_has_no_frames_to_offer(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())

    with pytest.raises(DataError, match="no video stream"):
        probe(path)


def test_a_sample_carries_pixels_caption_and_controls_in_one_bucket(tmp_path: Path) -> None:
    item = Item(
        name="a",
        media="a",
        path=picture(tmp_path / "a.png", size=(64, 48)),
        kind="image",
        caption="words",
        size=(64, 48),
        bucket=(48, 32),
        controls={"control": (picture(tmp_path / "b.png", size=(20, 90)),)},
    )

    sample = load_sample(item)

    assert sample.pixels is not None
    assert (sample.name, sample.caption, sample.pixels.shape) == ("a", "words", (1, 32, 48, 3))
    assert [control.shape for control in sample.controls["control"]] == [(1, 32, 48, 3)]
    assert load_sample(item, pixels=False, controls=False).pixels is None
