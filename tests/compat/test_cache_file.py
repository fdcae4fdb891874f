from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from musubi import CacheError, QwenImage, Wan
from musubi.batch import batch_key
from musubi.cache.format import FINGERPRINT, load
from musubi.compat.cache_file import read_cache_file, read_latent_file
from tests.compat import reference_files as files

WAN = Wan.t2v_14b()


def test_a_file_is_described_without_reading_its_tensors(tmp_path: Path) -> None:
    path = files.window(tmp_path, "clip", extra={"clip_bfloat16": files.tensor(2, 8, dtype=torch.float16)})

    file = read_cache_file(path, model=WAN, text=False)

    assert file.shapes == {"latents": (16, 2, 6, 8), "clip": (2, 8)}
    assert file.dtypes == {"latents": "BF16", "clip": "F16"}
    assert file.listed.key == batch_key(load(path))
    assert (file.listed.name, file.listed.bytes) == (path.name, path.stat().st_size)
    assert load(path, sha256=file.listed.sha256)


def test_what_a_latent_file_is_of_comes_from_its_metadata_not_from_its_looks(tmp_path: Path) -> None:
    picture = read_latent_file(files.picture(tmp_path, "dog_00000-025"), model=WAN)
    clip = read_latent_file(files.window(tmp_path, "dog", count=25), model=WAN)

    assert (picture.name.stem, picture.name.window) == ("dog_00000-025", None)
    assert (clip.name.stem, str(clip.name.window)) == ("dog", "00000-025")


def test_latents_without_frames_are_one_frame(tmp_path: Path) -> None:
    tensors = {"latents_1x6x8_float32": files.tensor(16, 6, 8, dtype=torch.float32)}
    path = files.saved(tmp_path / "a_0064x0048_wan.safetensors", tensors, architecture="wan", width=64, height=48)

    assert read_latent_file(path, model=WAN).frames == 1


@pytest.mark.parametrize("text", [False, True])
def test_a_tensor_in_two_dtypes_is_named(tmp_path: Path, *, text: bool) -> None:
    twice = {"varlen_t5_bfloat16": files.tensor(3, 8), "varlen_t5_float16": files.tensor(3, 8, dtype=torch.float16)}
    path = files.text(tmp_path, "a", tensors=twice)

    with pytest.raises(CacheError, match="holds varlen_t5 twice: varlen_t5_bfloat16 and varlen_t5_float16"):
        read_cache_file(path, model=WAN, text=text)


def damaged(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-7])
    return path


def emptied(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def without_metadata(path: Path) -> Path:
    save_file(load_file(path), path)
    return path


def renamed(name: str) -> Callable[[Path], Path]:
    return lambda path: path.rename(path.with_name(name))


def a_folder(path: Path) -> Path:
    path.unlink()
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (a_folder, "is no file"),
        (damaged, "is not whole"),
        (emptied, "is not whole"),
        (without_metadata, "is of no architecture, not of wan"),
        (renamed("clip_00000-005_0080x0048_wan.safetensors"), "is 64x48 by its metadata, not 80x48"),
        (renamed("clip_00000-009_0064x0048_wan.safetensors"), "has 5 frames by its metadata, not 9"),
        (renamed("clip_0064x0048_wan.safetensors"), "has a name that its content does not explain"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(
    tmp_path: Path, change: Callable[[Path], Path], words: str
) -> None:
    path = change(files.window(tmp_path, "clip"))

    with pytest.raises(CacheError) as caught:
        read_latent_file(path, model=WAN)

    assert path.name in str(caught.value)
    assert words in str(caught.value)


def test_a_file_of_another_architecture_is_refused(tmp_path: Path) -> None:
    path = files.window(tmp_path, "clip", full="hunyuan_video")

    with pytest.raises(CacheError, match="is of hunyuan_video, not of wan"):
        read_latent_file(path, model=WAN)


def test_a_file_that_a_build_wrote_is_refused(tmp_path: Path) -> None:
    tensors = {"varlen_t5_bfloat16": files.tensor(3, 8)}
    path = files.saved(tmp_path / "a_wan_te.safetensors", tensors, architecture="wan", **{FINGERPRINT: "0"})

    with pytest.raises(CacheError, match="was written by musubi"):
        read_cache_file(path, model=WAN, text=True)


def test_a_text_without_its_caption_or_its_tensors_is_refused(tmp_path: Path) -> None:
    tensors = {"varlen_t5_bfloat16": files.tensor(3, 8)}
    silent = files.saved(tmp_path / "a_wan_te.safetensors", tensors, architecture="wan")
    hollow = files.text(tmp_path, "b", tensors={"other_bfloat16": files.tensor(2)})

    with pytest.raises(CacheError, match="says no caption"):
        read_cache_file(silent, model=WAN, text=True)
    with pytest.raises(CacheError, match="lacks varlen_t5"):
        read_cache_file(hollow, model=WAN, text=True)


@pytest.mark.parametrize(
    ("key", "shape", "words"),
    [
        ("latents_2x6x8_bfloat16", (20, 2, 6, 8), "of 16 channels are wanted"),
        ("latents_2x6x8_bfloat16", (16, 2, 6, 6), "names latents of shape"),
        ("latents_bfloat16", (16, 2, 6, 8), "names latents of shape"),
        ("latents_2x6x6_bfloat16", (16, 2, 6, 6), "has latents of 48x48, not of 64x48"),
        ("latents_3x6x8_bfloat16", (16, 3, 6, 8), "has 3 latent frames, which are not those of 5"),
        ("latents_1x6x8_bfloat16", (16, 8), "of 16 channels are wanted"),
    ],
)
def test_latents_of_another_shape_than_told_are_refused(
    tmp_path: Path, key: str, shape: tuple[int, ...], words: str
) -> None:
    path = files.window(tmp_path, "clip")
    facts = {"width": 64, "height": 48, "frame_count": 5}
    files.saved(path, {key: files.tensor(*shape)}, architecture="wan", **facts)

    with pytest.raises(CacheError) as caught:
        read_latent_file(path, model=WAN)

    assert words in str(caught.value)


def test_models_that_edit_have_files_of_their_own_name(tmp_path: Path) -> None:
    extra = {"latents_control_0_1x4x4_bfloat16": files.tensor(16, 1, 4, 4)}
    path = files.picture(tmp_path, "a", arch="qie", full="qwen_image", extra=extra)

    latent = read_latent_file(path, model=QwenImage.edit())

    assert latent.name.stem == "a"
    assert latent.file.shapes["latents_control_0"] == (16, 1, 4, 4)
