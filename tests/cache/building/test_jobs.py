from __future__ import annotations

from pathlib import Path

import attrs

from musubi.architecture import Stage
from musubi.cache.building.jobs import alternatives, media_of, stages_of, suffix_of
from musubi.cache.building.masks import MASK
from musubi.data.sample import Control, Window
from musubi.testing.toy import Toy
from tests.cache.making import LATENTS, TEXT, a_job, an_item
from tests.data.files import clip

EDIT = Stage(name="edit", components=("text",), reads=("caption", "controls"))


def test_a_clips_window_and_the_parts_of_an_item_are_in_the_names() -> None:
    item = an_item("dog", kind="video", window=Window(16, 25))

    assert a_job(item).file_names(1) == ("dog_00016-025_0064x0064_toy.safetensors",)
    assert a_job(item).file_names(2) == tuple(f"dog_00016-025-000{n}_0064x0064_toy.safetensors" for n in (0, 1))
    assert a_job(item, TEXT).file_names(2) == ("dog_0000_toy_te.safetensors", "dog_0001_toy_te.safetensors")
    assert a_job(item).renamed("1234").file_names(1) == ("dog-1234_00016-025_0064x0064_toy.safetensors",)


def test_a_mask_does_not_end_like_the_references_files() -> None:
    item = an_item(mask=Path("m.png"))

    assert suffix_of(MASK, Toy()) == "toy_mask"
    assert a_job(item, MASK).file_names(1) == ("cat_0064x0064_toy.safetensors",)


def test_captions_are_alternatives_of_stages_that_read_them() -> None:
    item = an_item(captions=("one", "two"), dropout=0.1)

    assert alternatives(LATENTS, item) == (None,)
    assert alternatives(TEXT, item) == ("one", "two", "")
    assert alternatives(TEXT, attrs.evolve(item, dropout=0.0)) == ("one", "two")


def test_what_is_made_of_words_alone_is_named_after_the_file_and_the_blank_caption_after_nobody() -> None:
    item = an_item("dog_00000-005", media="dog", captions=("one", "two"), dropout=0.1)

    assert [media_of(TEXT, item, n, "abcdefgh90") for n in range(3)] == ["dog", "dog_c0001", "blank-abcdefgh"]
    assert [media_of(EDIT, item, n, "abcdefgh90") for n in range(2)] == ["dog_00000-005", "dog_00000-005_c0001"]


def test_a_second_stage_of_a_kind_has_its_name_in_its_files() -> None:
    @attrs.frozen(kw_only=True)
    class Seeing(Toy):
        @property
        def stages(self) -> tuple[Stage, ...]:
            return (*super().stages, Stage(name="clip", components=(), reads=("pixels",)))

    assert [suffix_of(stage, Seeing()) for stage in Seeing().stages] == ["toy", "toy", "clip_toy"]


def test_only_an_item_with_a_mask_has_the_mask_stage() -> None:
    assert [stage.name for stage in stages_of(Toy(), an_item())] == ["latents", "text"]
    assert [stage.name for stage in stages_of(Toy(), an_item(mask=Path("m.png")))] == ["latents", "text", "mask"]


def test_the_shape_is_that_of_all_that_is_read(tmp_path: Path) -> None:
    seen = Stage(name="latents", components=(), reads=("pixels", "controls"))
    still = {"control": (Control(path=tmp_path / "a.png", bucket=(32, 16)),)}
    moving = {"control": (Control(path=clip(tmp_path / "a.mp4"), bucket=(32, 16)),)}
    item = an_item(kind="video", window=Window(0, 5), controls=still)

    assert a_job(item, seen).pixels == 5 * 64 * 64 + 32 * 16
    assert a_job(attrs.evolve(item, controls=moving), seen).pixels == 5 * (64 * 64 + 32 * 16)
    shapes = [a_job(attrs.evolve(item, controls=c), seen).shape for c in (still, moving, {})]
    assert len(set(shapes)) == 3
    assert len({a_job(attrs.evolve(item, controls=c)).shape for c in (still, moving, {})}) == 1
    assert a_job(item, TEXT).pixels == 0
