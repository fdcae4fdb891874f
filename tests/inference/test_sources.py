from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from musubi.core.errors import ConfigError, DataError
from musubi.inference.media import Image, Video
from musubi.inference.sources import as_source, as_sources, read_frames, read_picture, source_name

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 6, 4, 3), dtype=np.uint8)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A folder of seven frames."""
    for number, frame in enumerate(PIXELS):
        Image(frame).save(tmp_path / "clip" / f"{number:02}.png")
    return tmp_path / "clip"


def test_paths_pictures_and_arrays_are_sources() -> None:
    still, frames = Image(PIXELS[0]), Video(PIXELS, fps=1)

    assert as_source("a.png") == Path("a.png")
    assert [as_source(one) for one in (PIXELS[0], torch.tensor(PIXELS[0]), Pillow.fromarray(PIXELS[0]))] == [still] * 3
    assert [as_source(one) for one in (PIXELS, torch.tensor(PIXELS), frames)] == [frames] * 3
    assert as_source(None) is None
    assert repr(as_source(7)) == "7", "is for the check of the field to refuse"


def test_an_image_of_pillow_is_turned_as_it_says_and_loses_its_alpha() -> None:
    turned = Pillow.fromarray(PIXELS[0]).convert("RGBA")
    turned.getexif()[0x0112] = 6

    assert as_source(turned) == Image(np.rot90(PIXELS[0], -1))


def test_one_source_or_several_are_a_list() -> None:
    assert as_sources("a.png") == as_sources(["a.png"]) == (Path("a.png"),)
    assert as_sources([PIXELS[0], "b.png"]) == (Image(PIXELS[0]), Path("b.png"))
    assert as_sources(None) == ()


def test_a_picture_is_one_frame_wherever_it_lies(tmp_path: Path) -> None:
    file = Image(PIXELS[0]).save(tmp_path / "a.png")

    for source in (file, Image(PIXELS[0])):
        assert torch.equal(read_picture(source, "image"), torch.tensor(PIXELS[:1]))
        assert torch.equal(read_frames(source, "control", count=5), torch.tensor(PIXELS[:1]))


def test_of_a_clip_the_first_frames_are_read(clip: Path) -> None:
    for source in (clip, Video(PIXELS, fps=8)):
        assert torch.equal(read_frames(source, "video", count=5), torch.tensor(PIXELS[:5]))


def test_a_clip_that_is_too_short_is_refused_with_what_it_has(clip: Path) -> None:
    for source in (clip, Video(PIXELS, fps=8)):
        with pytest.raises(ConfigError, match=r"video: .* has 7 frames, 9 are wanted"):
            read_frames(source, "video", count=9)


def test_a_clip_is_no_picture(clip: Path) -> None:
    for source in (clip, Video(PIXELS, fps=8)):
        with pytest.raises(ConfigError, match="image: must be a picture"):
            read_picture(source, "image")


def test_a_file_that_cannot_be_read_is_told_with_its_role(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")

    with pytest.raises(DataError, match="the request's last"):
        read_picture(tmp_path / "broken.png", "last")


def test_results_tell_a_files_name_without_its_folder() -> None:
    assert source_name(Path("somewhere/a.png")) == "a.png"
    assert source_name(Image(PIXELS[0])) == "in memory"
