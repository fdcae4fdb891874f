from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from musubi.core.errors import DataError
from musubi.data.media.frame_folder import frame_files, natural_order
from musubi.data.media.video import probe_clip, read_clip


def folder(path: Path, *names: str, size: tuple[int, int] = (8, 6)) -> Path:
    """Make a folder of pictures, the ``i``-th of brightness ``i``."""
    path.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        Image.new("RGB", size, (number, number, number)).save(path / name)
    return path


def brightness(path: Path, frames: list[int]) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in read_clip(path, frames)]


def test_frames_come_in_the_order_of_the_numbers_in_their_names(tmp_path: Path) -> None:
    path = folder(tmp_path / "a", "frame_1.png", "frame_2.png", "frame_10.PNG", "frame_100.jpg")

    assert brightness(path, [0, 1, 2, 3]) == [0, 1, 2, 3]


@given(st.lists(st.integers(0, 9999), min_size=1, max_size=30, unique=True))
def test_padded_numbers_come_in_the_order_of_their_text(numbers: list[int]) -> None:
    names = [f"take 2/clip_{number:04d}.png" for number in numbers]

    assert [path.as_posix() for path in sorted(map(Path, names), key=natural_order)] == sorted(names)


def test_a_folder_is_probed_for_its_size_and_number_of_frames(tmp_path: Path) -> None:
    found = probe_clip(folder(tmp_path / "v.1", *(f"{n}.png" for n in range(12))))

    assert (found.kind, found.size, found.frames, found.fps, found.times) == ("video", (8, 6), 12, 0.0, ())


def test_a_frame_is_read_once_and_given_as_often_as_it_is_wanted(tmp_path: Path) -> None:
    frames = list(read_clip(folder(tmp_path / "a", "1.png", "2.png", "3.png"), [0, 2, 2]))

    assert frames[1] is frames[2]
    assert [frame[0, 0, 0] for frame in frames] == [0, 2, 2]
    assert (frames[0].shape, frames[0].dtype.name) == ((6, 8, 3), "uint8")


def test_hidden_files_and_those_that_are_no_pictures_are_passed_over(tmp_path: Path) -> None:
    path = folder(tmp_path / "a", "1.png", "2.png")
    folder(path, ".0.png", "._1.png", size=(3, 3))
    (path / "notes.txt").write_text("no frame", encoding="utf-8")
    (path / "more").mkdir()

    assert [file.name for file in frame_files(path)] == ["1.png", "2.png"]
    assert probe_clip(path).frames == 2


def test_every_frame_of_another_size_is_named(tmp_path: Path) -> None:
    path = folder(tmp_path / "a", "1.png", "2.png", "3.png", "4.png")
    Image.new("RGB", (9, 6)).save(path / "2.png")
    Image.new("RGB", (8, 7)).save(path / "4.png")

    with pytest.raises(DataError) as caught:
        probe_clip(path)

    assert [Path(issue.path).name for issue in caught.value.issues] == ["2.png", "4.png"]
    assert [issue.message for issue in caught.value.issues] == ["is 9x6", "is 8x7"]
    with pytest.raises(DataError, match=r"2\.png: is 9x6 \(hint: the first frame is 8x6"):
        list(read_clip(path, [0, 1]))


def test_a_damaged_frame_is_named(tmp_path: Path) -> None:
    path = folder(tmp_path / "a", "1.png", "2.png")
    (path / "2.png").write_bytes(b"no picture")

    with pytest.raises(DataError, match=r"a/2\.png: is damaged"):
        probe_clip(path)
    with pytest.raises(DataError, match=r"a/2\.png: is damaged"):
        list(read_clip(path, [0, 1]))


def test_a_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a: holds no picture"):
        probe_clip(folder(tmp_path / "a"))


def test_frames_that_are_no_longer_there_are_an_error(tmp_path: Path) -> None:
    path = folder(tmp_path / "a", "1.png", "2.png")

    with pytest.raises(DataError, match=r"a: is truncated \(hint: frame 5 is wanted, it holds 2"):
        list(read_clip(path, [1, 5]))
