from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from musubi.core.errors import DataError
from musubi.data.media.image_files import opened
from tests.data.files import clip, picture, pixels


def seen(path: Path) -> tuple[str | None, tuple[int, int]]:
    with opened(path) as image:
        return image.format, image.size


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "AVIF", "GIF", "TIFF"])
@pytest.mark.parametrize("name", ["a.png", "a.JPG", "no ending", "ünï [1] #.webp"])
def test_the_content_decides_what_a_file_is(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / name
    Image.fromarray(pixels(20, 10)).save(path, kind)

    assert seen(path) == (kind, (20, 10))


def test_jpeg_xl_is_read_where_its_plugin_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("pillow_jxl", reason="the plugin for JPEG XL is not a dependency")
    Image.fromarray(pixels(20, 10)).save(tmp_path / "a.png", "JXL")

    assert seen(tmp_path / "a.png") == ("JXL", (20, 10))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf \n<!DOCTYPE HTML><html><body>404", "is a web page"),
        (b"<html>", "is a web page"),
        (b"<svg xmlns=", "is a drawing"),
        (b"%PDF-1.7", "is a PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "is a PostScript file"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"PK\x03\x04\x14", "is a ZIP archive"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "is HEIC"),
        (b"\x1aE\xdf\xa3\x93B", r"is a video.*\.mkv"),
        (b"no picture at all" * 50, "is damaged or not a picture"),
        (b"\0" * 500, "is damaged or not a picture"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 500, "is damaged"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 500, "is damaged"),
        (b"BM" + b"\0" * 500, "is damaged"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "is damaged"),
    ],
)
def test_what_is_no_picture_is_called_by_its_name(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)

    with pytest.raises(DataError, match=rf"a\.png: .*{what}"):
        seen(path)


def test_a_video_with_a_pictures_name_is_said_to_be_one(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", frames=2).rename(tmp_path / "a.png")

    with pytest.raises(DataError, match=r"is a video.*\.mp4"):
        seen(path)


def test_the_first_of_several_pictures_in_a_jpeg_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels(20, 10)).save(path, "MPO", save_all=True, append_images=[Image.fromarray(pixels(8, 8))])

    assert seen(path) == ("JPEG", (20, 10))


def test_a_large_picture_is_read_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = picture(tmp_path / "a.png", size=(50, 39))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)

    with opened(path) as image:
        image.load()

    assert image.size == (50, 39), "Pillow warns above its number of pixels; warnings are errors in these tests"


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "avif"])
def test_more_than_twice_pillows_number_of_pixels_is_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    path = picture(tmp_path / f"a.{ending}", size=(50, 41))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)

    with pytest.raises(DataError, match=r"too many pixels .*MAX_IMAGE_PIXELS.*2000"):
        seen(path)

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert seen(path)[1] == (50, 41)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(tmp_path / "a.png")

    with pytest.raises(DataError, match="is not a file"):
        seen(tmp_path / "a.png")


def test_links_in_a_circle_and_missing_files_are_named(tmp_path: Path) -> None:
    try:
        (tmp_path / "a.png").symlink_to(tmp_path / "a.png")
    except OSError:
        pytest.skip("links may not be made here")

    with pytest.raises(DataError, match=r"a\.png: the system cannot read it"):
        seen(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"b\.png: no such file"):
        seen(tmp_path / "b.png")
