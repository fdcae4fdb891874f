from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from musubi.core.errors import DataError
from musubi.data.media.images import probe_image, read_image, read_mask
from tests.data.files import picture, pixels, png_chunk, raw_png

SIZE = (32, 24)
ENDINGS = ["png", "jpg", "jpeg", "webp", "bmp", "avif"]


def by_pillow(path: Path) -> NDArray[np.uint8]:
    """Return what the reference reads."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("ending", [*ENDINGS, "PNG", "JPG", "WebP", "Jpeg"])
def test_pictures_of_all_formats_are_read_as_pillow_reads_them(tmp_path: Path, ending: str) -> None:
    path = picture(tmp_path / f"a.{ending}", size=SIZE)

    assert np.array_equal(read_image(path), by_pillow(path))
    assert (probe_image(path).kind, probe_image(path).size) == ("image", SIZE)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_pictures_of_all_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode in {"CMYK", "YCbCr"} else "a.png")
    Image.fromarray(pixels(*SIZE)).convert(mode).save(path)

    read = read_image(path)

    assert read.shape == (24, 32, 3)
    assert read.dtype == np.uint8
    assert np.array_equal(read, by_pillow(path))


def test_a_picture_converted_in_strips_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = picture(tmp_path / "a.png", size=(37, 53))
    monkeypatch.setattr("musubi.data.media.images._STRIP", 100)

    assert np.array_equal(read_image(path), pixels(37, 53))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_of_16_bits_the_upper_8_count_in_grey_and_in_colour(tmp_path: Path, channels: int) -> None:
    values = np.linspace(0, 65535, 24 * 32).astype(np.uint16).reshape(24, 32, 1)
    path = raw_png(tmp_path / "a.png", np.repeat(values, channels, axis=2))

    assert np.array_equal(read_image(path), np.repeat(values >> 8, 3, axis=2))


def test_a_turned_picture_of_16_bits_is_read_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    values = np.arange(12, dtype=np.uint16).reshape(3, 4, 1) << 8
    path = raw_png(tmp_path / "a.png", values, before=png_chunk(b"eXIf", exif.tobytes()[6:]))

    assert probe_image(path).size == (3, 4)
    assert np.array_equal(read_image(path)[:, :, 0], np.rot90(values[:, :, 0] >> 8, k=-1))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_dropped_without_a_background(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    Image.new("RGBA", (4, 4), (20, 20, 20, 0)).convert(mode).save(path)

    assert (read_image(path) == 20).all()


@pytest.mark.parametrize("transparency", [3, bytes(range(0, 160, 10))])
def test_a_palette_with_transparency_gives_its_colours(tmp_path: Path, transparency: int | bytes) -> None:
    path = tmp_path / "a.png"
    few = Image.fromarray(pixels(*SIZE)).quantize(16)
    few.save(path, transparency=transparency)

    assert np.array_equal(read_image(path), np.asarray(few.convert("RGB")))


def test_the_colours_of_a_ycck_jpeg_are_right(tmp_path: Path) -> None:
    path, colours = tmp_path / "a.jpg", pixels(*SIZE)
    luma = np.asarray(Image.fromarray(255 - colours).convert("YCbCr"))
    planes = Image.fromarray(255 - np.dstack([luma, np.full((24, 32), 255, np.uint8)]), "CMYK")
    buffer = io.BytesIO()
    planes.save(buffer, "JPEG", quality=100, subsampling=0)
    data = bytearray(buffer.getvalue())
    data[data.index(b"Adobe") + 11] = 2  # says that the first three channels are luma and chroma
    path.write_bytes(data)

    assert np.abs(read_image(path).astype(int) - colours).max() < 8


def test_colour_profiles_change_nothing(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    Image.fromarray(pixels(*SIZE)).save(tmp_path / "a.png", icc_profile=profile)

    assert np.array_equal(read_image(tmp_path / "a.png"), pixels(*SIZE))


@pytest.mark.parametrize("ending", ["png", "webp"])
def test_the_first_frame_of_an_animation_counts(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    first, second = Image.fromarray(pixels(*SIZE)), Image.fromarray(255 - pixels(*SIZE))
    first.save(path, save_all=True, append_images=[second], lossless=True)

    assert np.array_equal(read_image(path), pixels(*SIZE))


def test_floats_from_0_to_1_are_read_and_others_reported(tmp_path: Path) -> None:
    fits, beyond = tmp_path / "a.png", tmp_path / "b.png"
    Image.fromarray(np.array([[0, 0.5, 1]], np.float32)).save(fits, "TIFF")
    Image.fromarray(np.array([[0, 0.5, 1.5]], np.float32)).save(beyond, "TIFF")

    assert read_image(fits)[0, :, 0].tolist() == [0, 128, 255]
    with pytest.raises(DataError, match=r"b\.png: has values \(F\)"):
        read_image(beyond)


def test_colours_that_cannot_be_converted_are_reported(tmp_path: Path) -> None:
    Image.fromarray(pixels(*SIZE)).convert("LAB").save(tmp_path / "a.png", "TIFF")

    with pytest.raises(DataError, match=r"a\.png: has values \(LAB\)"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
@pytest.mark.parametrize("ending", ENDINGS)
def test_pictures_of_any_shape_are_read(tmp_path: Path, size: tuple[int, int], ending: str) -> None:
    path = picture(tmp_path / f"a.{ending}", size=size)

    assert probe_image(path).size == size
    assert read_image(path).shape == (size[1], size[0], 3)


def test_a_picture_without_pixels_is_an_error(tmp_path: Path) -> None:
    path = raw_png(tmp_path / "a.png", np.zeros((0, 5, 3), np.uint8))

    with pytest.raises(DataError, match=r"a\.png: is damaged"):
        probe_image(path)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_picture_is_never_read(tmp_path: Path, ending: str, share: float) -> None:
    path = picture(tmp_path / f"a.{ending}", size=(200, 150))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    with pytest.raises(DataError, match=rf"a\.{ending}: is "):
        read_image(path)


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp"])
def test_a_look_reads_the_header_only(tmp_path: Path, ending: str) -> None:
    path = picture(tmp_path / f"a.{ending}", size=(300, 200))
    path.write_bytes(path.read_bytes()[:1000])

    assert probe_image(path).size == (300, 200)


def test_a_mask_is_the_brightness_of_an_opaque_picture(tmp_path: Path) -> None:
    values = pixels(*SIZE)[:, :, 0]
    alpha = np.full_like(values, 255)
    for name, content in {"grey": values, "with alpha": np.dstack([values, values, values, alpha])}.items():
        Image.fromarray(content).save(tmp_path / f"{name}.png")

    assert np.array_equal(read_mask(tmp_path / "grey.png"), values)
    assert np.abs(read_mask(tmp_path / "with alpha.png").astype(int) - values).max() <= 1


def test_a_mask_is_the_alpha_channel_where_it_says_something(tmp_path: Path) -> None:
    alpha = pixels(*SIZE)[:, :, 1]
    Image.fromarray(np.dstack([pixels(*SIZE), alpha])).save(tmp_path / "a.png")

    assert np.array_equal(read_mask(tmp_path / "a.png"), alpha)


def test_a_mask_may_be_a_palettes_transparency(tmp_path: Path) -> None:
    few = Image.fromarray(pixels(*SIZE)).quantize(4)
    few.save(tmp_path / "a.png", transparency=bytes([0, 80, 160, 255]))

    assert np.array_equal(read_mask(tmp_path / "a.png"), np.array([0, 80, 160, 255])[np.asarray(few)])


def test_a_mask_may_have_1_or_16_bits(tmp_path: Path) -> None:
    values = pixels(*SIZE)[:, :, :1]
    raw_png(tmp_path / "deep.png", values.astype(np.uint16) * 257)
    Image.fromarray(values[:, :, 0] > 127).save(tmp_path / "flat.png")

    assert np.array_equal(read_mask(tmp_path / "deep.png"), values[:, :, 0])
    assert np.array_equal(read_mask(tmp_path / "flat.png"), (values[:, :, 0] > 127) * 255)


def test_a_mask_of_a_cmyk_picture_is_its_brightness(tmp_path: Path) -> None:
    grey = Image.fromarray(pixels(*SIZE)[:, :, 0])
    grey.convert("RGB").convert("CMYK").save(tmp_path / "a.jpg", quality=100, subsampling=0)

    assert np.abs(read_mask(tmp_path / "a.jpg").astype(int) - np.asarray(grey)).max() < 8


def test_a_mask_of_zeros_and_ones_is_reported_because_white_is_255(tmp_path: Path) -> None:
    Image.fromarray((pixels(*SIZE)[:, :, 0] > 127).astype(np.uint8)).save(tmp_path / "a.png")

    with pytest.raises(DataError, match=r"a\.png: holds no value above 1"):
        read_mask(tmp_path / "a.png")
