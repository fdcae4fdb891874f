from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from musubi.core.errors import ConfigError
from musubi.inference.media import Image, Video, to_uint8

if TYPE_CHECKING:
    from musubi.inference.media import Pixels


def two_colours(frames: int = 5, height: int = 48, width: int = 64) -> Pixels:
    pixels = np.zeros((frames, height, width, 3), np.uint8)
    pixels[:, :, : width // 2] = (230, 40, 10)
    pixels[:, :, width // 2 :] = (10, 90, 200)
    pixels[0, : height // 2] = (250, 250, 250)
    return pixels


@given(level=st.integers(0, 255))
def test_floats_are_rounded_to_the_nearest_level(level: int) -> None:
    near = torch.tensor([level / 255 - 0.4 / 255, level / 255, level / 255 + 0.4 / 255])

    assert to_uint8(near).tolist() == [level] * 3


def test_what_is_not_in_range_is_clipped_and_what_is_no_number_is_black() -> None:
    assert to_uint8(torch.tensor([-0.5, 1.5, float("nan"), float("inf")])).tolist() == [0, 255, 0, 255]


def test_half_precision_tensors_and_uint8_are_taken() -> None:
    assert to_uint8(torch.ones(2, dtype=torch.bfloat16)).tolist() == [255, 255]
    assert to_uint8(torch.tensor([7], dtype=torch.uint8)).tolist() == [7]


def test_whole_numbers_other_than_uint8_are_refused() -> None:
    with pytest.raises(ConfigError, match="must be uint8, or float"):
        to_uint8(torch.tensor([7]))


def test_a_picture_is_a_value_of_its_own() -> None:
    source = two_colours()[1]
    image = Image(source)

    source[:] = 0

    assert image == Image(two_colours()[1])
    assert image != Image(source)
    assert not image.to_numpy().flags.writeable
    assert repr(image) == "<Image of 64x48>"


@pytest.mark.parametrize("shape", [(48, 64), (3, 48, 64), (2, 48, 64, 3), (0, 64, 3)])
def test_a_picture_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"must have the shape \(H, W, 3\)"):
        Image(np.zeros(shape))


def test_png_keeps_every_pixel_and_says_what_it_shows(tmp_path: Path) -> None:
    image = Image(two_colours()[0], metadata={"prompt": "a fox in “snow”, 狐", "seed": "7"})

    path = image.save(tmp_path / "new" / "fox.png")

    with Pillow.open(path) as found:
        assert np.array_equal(np.asarray(found), image.to_numpy())
        assert found.info["prompt"] == "a fox in “snow”, 狐"
        assert found.info["seed"] == "7"


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp", ".PNG"])
def test_other_picture_files_open_at_the_right_size(tmp_path: Path, suffix: str) -> None:
    path = Image(two_colours()[0]).save(tmp_path / f"fox{suffix}")

    with Pillow.open(path) as found:
        assert found.size == (64, 48)
        assert np.abs(np.asarray(found.convert("RGB")).astype(int)[30, 10] - two_colours()[0, 30, 10]).max() <= 6


@pytest.mark.parametrize("name", ["fox.mp4", "fox", "fox.pgn"])
def test_a_picture_with_a_wrong_suffix_names_the_right_ones_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"supported are \.png, \.jpg, \.jpeg, \.webp"):
        Image(two_colours()[0]).save(tmp_path / name)

    assert list(tmp_path.iterdir()) == []


def test_mp4_has_the_frames_the_rate_the_size_and_the_colours(tmp_path: Path) -> None:
    video = Video(two_colours(9), fps=16, metadata={"prompt": "a fox", "seed": "7"})

    path = video.save(tmp_path / "fox.mp4")

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert (stream.width, stream.height, stream.average_rate, len(frames)) == (64, 48, Fraction(16), 9)
        assert (container.metadata["prompt"], container.metadata["seed"]) == ("a fox", "7")
    for x, y in ((8, 40), (56, 40), (30, 4)):
        assert np.abs(frames[0][y, x].astype(int) - video.frames[0, y, x]).max() <= 8


def test_sides_of_odd_length_become_even_by_repeating_the_border(tmp_path: Path) -> None:
    path = Video(two_colours(3, height=33, width=47), fps=8).save(tmp_path / "odd.mp4")

    with av.open(str(path)) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert frame.shape == (34, 48, 3)
    assert np.abs(frame[33, 47].astype(int) - (10, 90, 200)).max() <= 8


def test_a_film_rate_is_kept_to_the_thousandth(tmp_path: Path) -> None:
    path = Video(two_colours(5), fps=24000 / 1001).save(tmp_path / "film.mp4")

    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == pytest.approx(24000 / 1001, abs=1e-3)


def test_a_lower_crf_makes_a_larger_file(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (5, 48, 64, 3), dtype=np.uint8)
    video = Video(noise, fps=8)

    good, poor = video.save(tmp_path / "good.mp4", crf=5), video.save(tmp_path / "poor.mp4", crf=45)

    assert good.stat().st_size > 2 * poor.stat().st_size


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_animations_have_all_frames_and_the_duration(tmp_path: Path, suffix: str) -> None:
    pixels = two_colours(5)
    pixels[:, :8, :8] = np.arange(0, 250, 50, dtype=np.uint8)[:, None, None, None]

    path = Video(pixels, fps=10).save(tmp_path / f"fox{suffix}")

    with Pillow.open(path) as found:
        assert (found.n_frames, found.size) == (5, (64, 48))  # type: ignore[attr-defined]
        found.seek(1)
        found.load()
        assert found.info["duration"] == 100


def test_a_clip_of_a_wrong_suffix_or_rate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot write \.mov \(hint: supported are \.mp4"):
        Video(two_colours(), fps=8).save(tmp_path / "fox.mov")
    with pytest.raises(ConfigError, match="fps: must be a number above 0"):
        Video(two_colours(), fps=0)


def test_a_clip_falls_into_pictures() -> None:
    video = Video(two_colours(5), fps=8, metadata={"seed": "7"})

    assert [image.metadata["seed"] for image in video.images()] == ["7"] * 5
    assert np.array_equal(np.stack([np.asarray(image) for image in video.to_pil()]), video.to_numpy())
    assert (video.size, video.seconds, repr(video)) == (
        (64, 48),
        0.625,
        "<Video of 5 frames of 64x48 at 8 frames a second>",
    )


def test_notebooks_show_a_picture_whole_and_a_clip_small() -> None:
    large = Video(two_colours(2, height=400, width=800), fps=8)

    assert Image(two_colours()[0])._repr_png_().startswith(b"\x89PNG")
    assert large._repr_html_().startswith(
        '<img alt="2 frames of 800x400 at 8 frames a second" src="data:image/webp;base64,'
    )
    assert len(large._repr_html_()) < 20_000
