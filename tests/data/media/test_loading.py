from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from musubi.architecture import Size
from musubi.batch import Sample
from musubi.core.errors import DataError
from musubi.data.media import resize
from musubi.data.media.loading import Samples, load_mask, load_pixels, load_sample, probe
from musubi.data.media.resize import to_bucket
from musubi.data.media.video import read_clip
from musubi.data.sample import Control, Item, Window
from tests.data.files import clip, picture, pixels

BUCKET = (32, 32)


def item(path: Path, *, frames: int = 1, controls: Mapping[str, tuple[Control, ...]] | None = None) -> Item:
    """Return a still's item, or one of a clip's first frames."""
    return Item(
        name="a",
        media="a",
        path=path,
        kind="image" if frames == 1 else "video",
        captions=("words", "other words"),
        size=(64, 48),
        bucket=(48, 32),
        window=Window(0, frames),
        controls=controls or {},
    )


def frame_folder(folder: Path, count: int, *, size: Size = (64, 48)) -> Path:
    folder.mkdir()
    for number in range(count):
        picture(folder / f"{number:03d}.png", size=size, seed=number, caption=None)
    return folder


def red(frames: Tensor) -> Tensor:
    """Return how red each frame is: about 20 times its number in ``clip``."""
    return frames[..., 0].float().mean(dim=(1, 2))


def test_a_look_tells_pictures_clips_and_folders_apart(tmp_path: Path) -> None:
    still = probe(picture(tmp_path / "a.PNG", size=(64, 48)))
    moving = probe(clip(tmp_path / "a.mp4", frames=7, size=(64, 48)))
    folder = probe(frame_folder(tmp_path / "a.png", 3))

    assert (still.kind, still.size, still.frames) == ("image", (64, 48), 1)
    assert (moving.kind, moving.size, moving.frames, moving.fps) == ("video", (64, 48), 7, 8.0)
    assert (folder.kind, folder.size, folder.frames) == ("video", (64, 48), 3)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.mp4", "a.mkv", "a.avi"])
@pytest.mark.parametrize("content", [b"", b"\0", b"no media at all" * 50])
def test_what_is_not_media_is_an_error_that_names_the_file(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(DataError, match=name):
        probe(path)


def test_a_format_that_is_not_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.psd: this format is not read"):
        probe(tmp_path / "a.psd")


def test_the_frames_that_are_named_are_loaded(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", frames=9)

    loaded = load_pixels(path, frames=(3, 4, 4, 7), bucket=BUCKET)

    assert (loaded.shape, loaded.dtype) == ((4, 32, 32, 3), torch.uint8)
    assert torch.allclose(red(loaded), torch.tensor([60.0, 80.0, 80.0, 140.0]), atol=12)


def test_a_frame_that_repeats_is_resized_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Size] = []

    def counted(frame: resize.Pixels, bucket: Size) -> resize.Pixels:
        seen.append(bucket)
        return to_bucket(frame, bucket)

    monkeypatch.setattr("musubi.data.media.loading.to_bucket", counted)

    loaded = load_pixels(clip(tmp_path / "a.mp4", frames=5), frames=(1, 1, 1, 2, 2), bucket=BUCKET)

    assert len(seen) == 2
    assert torch.equal(loaded[0], loaded[2])
    assert not torch.equal(loaded[2], loaded[3])


def test_a_still_is_one_frame_whatever_is_asked_for(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", size=(64, 48))

    loaded = load_pixels(path, frames=range(5), bucket=BUCKET)

    assert np.array_equal(loaded.numpy()[0], to_bucket(pixels(64, 48), BUCKET))
    assert len(loaded) == 1


def test_a_head_is_read_though_the_rest_of_the_file_is_damaged(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.avi", frames=120, codec="mpeg4")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + b"\0" * (len(data) // 2))

    assert load_pixels(path, frames=range(5), bucket=BUCKET).shape[0] == 5


def test_a_window_takes_memory_for_itself_and_one_frame(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", frames=40, size=(512, 512))
    tracemalloc.start()

    load_pixels(path, frames=range(40), bucket=(64, 64))

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 512 * 512 * 3, "a few frames at the most; all would be 40"


def test_a_truncated_clip_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mkv", frames=40, size=(128, 128))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])

    with pytest.raises(DataError, match=r"a\.mkv: is (truncated|damaged)"):
        load_pixels(path, frames=range(40), bucket=BUCKET)


def test_a_truncated_picture_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", size=(200, 200))
    path.write_bytes(path.read_bytes()[:2000])

    with pytest.raises(DataError, match=r"a\.png: is damaged"):
        load_pixels(path, frames=(0,), bucket=BUCKET)


def test_a_sample_carries_pixels_and_the_first_caption(tmp_path: Path) -> None:
    still = item(picture(tmp_path / "a.png", size=(64, 48)))

    sample = load_sample(still)

    assert sample.pixels is not None
    assert (sample.name, sample.caption, sample.pixels.shape) == ("a", "words", (1, 32, 48, 3))
    assert (sample.mask, dict(sample.controls)) == (None, {})


def test_only_what_is_wanted_is_read(tmp_path: Path) -> None:
    absent = tmp_path / "absent.png"
    controls = {"control": (Control(path=absent, bucket=BUCKET),)}

    sample = load_sample(
        attrs.evolve(item(absent, controls=controls), mask=absent), pixels=False, controls=False, mask=False
    )

    assert (sample.pixels, dict(sample.controls), sample.mask) == (None, {}, None)


def test_every_control_comes_in_its_own_bucket_resized_once(tmp_path: Path) -> None:
    controls = {
        "control": (
            Control(path=picture(tmp_path / "b.png", size=(20, 90), seed=1), bucket=(16, 64)),
            Control(path=picture(tmp_path / "c.png", size=(70, 30), seed=2), bucket=(48, 32)),
        )
    }

    sample = load_sample(item(picture(tmp_path / "a.png"), controls=controls))

    first, second = sample.controls["control"]
    assert np.array_equal(first.numpy()[0], to_bucket(pixels(20, 90, seed=1), (16, 64)))
    assert np.array_equal(second.numpy()[0], to_bucket(pixels(70, 30, seed=2), (48, 32)))


def test_a_control_clip_shows_the_windows_frames_and_a_still_one_stays_one(tmp_path: Path) -> None:
    controls = {
        "pose": (Control(path=clip(tmp_path / "pose.mp4", frames=12), bucket=BUCKET),),
        "style": (Control(path=picture(tmp_path / "style.png"), bucket=BUCKET),),
    }
    moving = item(clip(tmp_path / "a.mp4", frames=9), frames=5, controls=controls)

    sample = load_sample(attrs.evolve(moving, window=Window(2, 5)))

    assert torch.allclose(red(sample.controls["pose"][0]), torch.arange(2.0, 7.0) * 20, atol=12)
    assert sample.controls["style"][0].shape == (1, 32, 32, 3)


@pytest.mark.parametrize(("frames", "expected"), [(4, [2, 3, 3, 3, 3]), (2, [1, 1, 1, 1, 1])])
def test_a_control_clip_that_ends_early_stays_at_its_last_frame(
    tmp_path: Path, frames: int, expected: list[int]
) -> None:
    controls = {"pose": (Control(path=clip(tmp_path / "pose.mp4", frames=frames), bucket=BUCKET),)}
    moving = attrs.evolve(item(clip(tmp_path / "a.mp4", frames=9), frames=5, controls=controls), window=Window(2, 5))

    sample = load_sample(moving)

    assert torch.allclose(red(sample.controls["pose"][0]), torch.tensor(expected) * 20.0, atol=12)


def test_a_damaged_control_clip_is_not_taken_for_a_short_one(tmp_path: Path) -> None:
    path = clip(tmp_path / "pose.avi", frames=60, codec="mpeg4")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + b"\0" * (len(data) - len(data) // 2))
    controls = {"pose": (Control(path=path, bucket=BUCKET),)}

    with pytest.raises(DataError, match=r"pose\.avi"):
        load_sample(item(clip(tmp_path / "a.mp4", frames=60), frames=60, controls=controls), pixels=False)


def test_a_mask_is_resized_and_cropped_as_its_picture(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", size=(64, 48))
    values = pixels(64, 48, seed=1)[:, :, 0]
    Image.fromarray(values).save(tmp_path / "mask.png")

    sample = load_sample(attrs.evolve(item(tmp_path / "a.png"), mask=tmp_path / "mask.png"))

    assert sample.mask is not None
    assert (sample.mask.shape, sample.mask.dtype) == ((1, 32, 48), torch.uint8)
    assert np.array_equal(sample.mask.numpy()[0], to_bucket(values, (48, 32)))


def test_one_mask_serves_all_frames_of_a_clip(tmp_path: Path) -> None:
    mask = load_mask(picture(tmp_path / "mask.png"), frames=range(5), size=(64, 48), bucket=BUCKET)

    assert mask.shape == (1, 32, 32)


def test_a_mask_that_moves_follows_the_window_and_stays_at_its_last_frame(tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    folder.mkdir()
    for number in range(3):
        Image.new("L", (64, 48), 100 * number).save(folder / f"{number}.png")

    mask = load_mask(folder, frames=(1, 1, 2, 3), size=(64, 48), bucket=BUCKET)

    assert mask.float().mean(dim=(1, 2)).tolist() == [100, 100, 200, 200]


def test_an_empty_folder_of_masks_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()

    with pytest.raises(DataError, match="masks: holds no picture"):
        load_mask(tmp_path / "masks", frames=(0,), size=(64, 48), bucket=BUCKET)


def test_many_items_are_what_each_is_alone(tmp_path: Path) -> None:
    path, pose = clip(tmp_path / "a.mp4", frames=12), clip(tmp_path / "pose.mp4", frames=9)
    first = attrs.evolve(
        item(path, frames=4, controls={"pose": (Control(path=pose, bucket=(16, 16)),)}),
        mask=picture(tmp_path / "m.png"),
    )
    windows = [attrs.evolve(first, name=f"a_{start}", window=Window(start, 4)) for start in (0, 2, 4, 8, 1)]
    items = [*windows, attrs.evolve(item(picture(tmp_path / "b.png")), name="b")]
    samples = Samples(items)

    for one in [*items, items[2]]:
        assert_equal(samples.load(one), load_sample(one))


def test_windows_of_a_clip_are_read_in_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[Sequence[int]] = []

    def noted(path: Path, frames: Sequence[int]) -> Iterator[resize.Pixels]:
        passes.append(frames)
        return read_clip(path, frames)

    monkeypatch.setattr("musubi.data.media.loading.read_clip", noted)
    first = item(clip(tmp_path / "a.mp4", frames=12), frames=4)
    windows = [attrs.evolve(first, name=f"a_{start}", window=Window(start, 4)) for start in (0, 4, 8)]
    samples = Samples(windows)

    for one in windows:
        samples.load(one)

    assert passes == [list(range(12))]


def test_a_damaged_window_does_not_spoil_the_others(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", frames=12)
    first = item(path, frames=4)
    windows = [attrs.evolve(first, name=f"a_{start}", window=Window(start, 4)) for start in (0, 10, 4)]
    samples = Samples(windows)

    assert_equal(samples.load(windows[0]), load_sample(windows[0]))
    with pytest.raises(DataError, match=r"a\.mp4: is truncated"):
        samples.load(windows[1])
    assert_equal(samples.load(windows[2]), load_sample(windows[2]))


def assert_equal(found: Sample, expected: Sample) -> None:
    assert (found.name, found.caption, found.controls.keys()) == (
        expected.name,
        expected.caption,
        expected.controls.keys(),
    )
    pairs = [(found.pixels, expected.pixels), (found.mask, expected.mask)]
    for role in expected.controls:
        pairs += zip(found.controls[role], expected.controls[role], strict=True)
    for mine, other in pairs:
        if mine is None or other is None:
            assert mine is other
        else:
            assert torch.equal(mine, other)


@pytest.mark.parametrize("what", ["control", "mask"])
def test_a_damaged_control_or_mask_is_told_of_the_item_that_is_lost_with_it(tmp_path: Path, what: str) -> None:
    still = item(picture(tmp_path / "a.png"))
    other = picture(tmp_path / "other.png", size=(256, 192))
    other.write_bytes(other.read_bytes()[:9000])
    control = {"control": (Control(path=other, bucket=(64, 48)),)}
    lost = attrs.evolve(still, controls=control) if what == "control" else attrs.evolve(still, mask=other)

    with pytest.raises(DataError, match=rf"a\.png: {what} is damaged.*other\.png: open it"):
        load_sample(lost)
