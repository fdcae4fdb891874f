from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import attrs
import pytest
import torch
from torch import Tensor

from musubi import Cache, CacheError, ConfigError, Dataset, Geometry, QwenImage, Wan, compat
from musubi.batch import Batch
from musubi.cache.format import load
from musubi.testing.toy import Toy
from tests.compat import reference_files as files
from tests.data import files as media

WAN = Wan.t2v_14b()


@attrs.frozen(kw_only=True)
class Sectioned(Toy):
    """Stand in for the architecture that makes sections of a window."""

    name: ClassVar[str] = "framepack"
    cache_suffix: ClassVar[str] = "fp"

    @property
    def geometry(self) -> Geometry:
        return WAN.geometry


def clips(folder: Path, *stems: str) -> Path:
    """Write clips with their text."""
    for seed, stem in enumerate(stems):
        files.window(folder, stem, seed=seed)
        files.text(folder, stem, f"{stem} moves")
    return folder


def built(folder: Path) -> Cache[Toy]:
    """Return the cache of two pictures."""
    (folder / "media").mkdir()
    for seed, stem in enumerate(("cat", "cow")):
        media.picture(folder / "media" / f"{stem}.png", size=(64, 64), seed=seed, caption=f"a {stem}")
    dataset = Dataset.from_folder(folder / "media", resolution=64)
    return Cache(folder / "cache", model=Toy()).build(dataset, progress=False)


def epoch(cache: Cache, batch_size: int | None = None) -> list[Batch]:
    loader = cache.loader(batch_size=batch_size)
    drawn = loader.batches()
    batches = [next(drawn)[1] for _ in range(len(loader))]
    drawn.close()
    return batches


def contents(folder: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}


def dropped(cache: Cache) -> dict[str, str]:
    """Return what was left out, by file name."""
    return {Path(issue.path).name: issue.message for issue in cache.dropped}


def test_batches_are_equal_to_the_tensors_in_the_files(tmp_path: Path) -> None:
    folder = clips(tmp_path / "my [cache]", "a.b_c", "dög")

    cache = compat.import_cache(folder, model=WAN)

    seen: dict[str, Batch] = {batch.items[0]: batch for batch in epoch(Cache(folder, model=WAN))}
    assert seen.keys() == {"a.b_c_00000-005", "dög_00000-005"}
    for stem, batch in seen.items():
        name = stem.removesuffix("_00000-005")
        latents = load(folder / f"{name}_00000-005_0064x0048_wan.safetensors")["latents"]
        words = load(folder / f"{name}_wan_te.safetensors")["varlen_t5"]
        assert torch.equal(batch["latents"], latents[None])
        assert batch["latents"].dtype == torch.bfloat16
        assert torch.equal(batch.each("t5")[0], words)
    assert cache == Cache(folder, model=WAN)


def test_nothing_but_the_manifest_is_written(tmp_path: Path) -> None:
    folder = clips(tmp_path, "a", "b")
    before = contents(folder)

    compat.import_cache(folder, model=WAN)

    assert contents(folder) == before
    assert {path.name for path in folder.iterdir()} - before.keys() == {"manifest.json"}


def test_captions_repeats_and_batch_size_are_known_afterwards(tmp_path: Path) -> None:
    folder = clips(tmp_path, "a", "b")

    cache = compat.import_cache(folder, model=WAN, batch_size=2, repeats=3)

    assert {cached.item.captions for cached in cache.items()} == {("a moves",), ("b moves",)}
    assert [len(batch) for batch in epoch(cache)] == [2, 2, 2]


def test_an_import_is_verified_like_a_build(tmp_path: Path) -> None:
    cache = compat.import_cache(clips(tmp_path, "a", "b"), model=WAN)
    (tmp_path / "a_wan_te.safetensors").write_bytes(b"another")

    (issue,) = cache.verify()

    assert "a_wan_te.safetensors" in issue.path


def test_pictures_of_equal_stems_are_told_apart_and_told_of(tmp_path: Path) -> None:
    for size, bucket in (((500, 1000), (48, 96)), ((1000, 500), (96, 48))):
        files.picture(tmp_path, "cat", size=size, bucket=bucket)
    files.text(tmp_path, "cat")

    cache = compat.import_cache(tmp_path, model=WAN)

    assert [cached.item.name for cached in cache.items()] == ["cat_500x1000", "cat_1000x500"]
    assert sorted(Path(note.path).name for note in cache.manifest().notes) == [
        "cat_0500x1000_wan.safetensors",
        "cat_1000x0500_wan.safetensors",
    ]


def test_items_with_other_numbers_of_controls_come_in_other_batches(tmp_path: Path) -> None:
    for number, stem in enumerate("ab"):
        extra = {f"latents_control_{i}_1x6x8_bfloat16": files.tensor(16, 1, 6, 8, seed=i) for i in range(number + 1)}
        files.picture(tmp_path, stem, arch="qie", full="qwen_image", extra=extra)
        text = {"varlen_vl_embed_bfloat16": files.tensor(4, 8)}
        files.text(tmp_path, stem, arch="qie", full="qwen_image", tensors=text)

    cache = compat.import_cache(tmp_path, model=QwenImage.edit_2509(), batch_size=2)

    assert sorted(batch.items for batch in epoch(cache)) == [("a",), ("b",)]


def section_text() -> Mapping[str, Tensor]:
    mask = torch.ones(4, dtype=torch.bool)
    half = files.tensor(4, 8, dtype=torch.float16)
    return {"llama_vec_float16": half, "llama_attention_mask": mask, "clip_l_pooler_float16": half[0].clone()}


def sections(folder: Path, *numbers: int) -> Path:
    """Write some of the two sections of a window of 73 frames."""
    for number in numbers:
        extra = {
            "latents_clean_9x6x8_bfloat16": files.tensor(16, 2, 6, 8),
            "latent_indices_int64": torch.arange(9),
            "clean_latent_indices_int64": torch.arange(2),
            "image_embeddings_bfloat16": files.tensor(5, 4),
        }
        part = {"section": number, "frames": 9, "seed": number}
        files.window(folder, "clip", count=73, arch="fp", full="framepack", extra=extra, **part)  # type: ignore[arg-type]
    files.text(folder, "clip", arch="fp", full="framepack", tensors=section_text())
    return folder


def test_sections_are_parts_of_one_item(tmp_path: Path) -> None:
    cache = compat.import_cache(sections(tmp_path, 0, 1), model=Sectioned())

    (cached,) = cache.items()
    (latents,) = cached.outputs["latents"]
    assert ["-0000_" in file.name for file in cache.manifest().outputs[latents].files] == [True, False]
    batches = epoch(cache)
    assert [batch.items for batch in batches] == [("clip_00000-073",)] * 2
    assert not torch.equal(batches[0]["latents"], batches[1]["latents"])
    assert torch.equal(batches[0]["llama_vec"], batches[1]["llama_vec"])


def test_a_window_that_lacks_a_section_is_left_out(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="has 1 sections of 2"):
        compat.import_cache(sections(tmp_path, 1), model=Sectioned())


def test_what_cannot_be_trained_with_is_left_out_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clips(tmp_path, "good", "cut", "twice")
    cut = tmp_path / "cut_00000-005_0064x0048_wan.safetensors"
    cut.write_bytes(cut.read_bytes()[:100])
    both = {"varlen_t5_bfloat16": files.tensor(3, 8), "varlen_t5_float32": files.tensor(3, 8, dtype=torch.float32)}
    files.text(tmp_path, "twice", tensors=both)
    files.window(tmp_path, "mute")
    files.window(tmp_path, "other", full="hunyuan_video")
    files.picture(tmp_path, "left_over")

    with caplog.at_level(logging.WARNING, logger="musubi"):
        cache = compat.import_cache(tmp_path, model=WAN)

    found = dropped(cache)
    assert [cached.item.media for cached in cache.items()] == ["good"]
    assert "is not whole" in found["cut_00000-005_0064x0048_wan.safetensors"]
    assert "holds varlen_t5 twice" in found["twice_wan_te.safetensors"]
    assert found["twice_00000-005_0064x0048_wan.safetensors"] == "has no text"
    assert found["mute_00000-005_0064x0048_wan.safetensors"] == "has no text"
    assert "is of hunyuan_video" in found["other_00000-005_0064x0048_wan.safetensors"]
    assert "is of a picture in a folder of clips" in found["left_over_0640x0480_wan.safetensors"]
    assert len(found) == 6
    assert all(name in caplog.text for name in found)


def test_a_clip_among_pictures_is_left_out_too(tmp_path: Path) -> None:
    for stem in "abc":
        files.picture(tmp_path, stem)
        files.text(tmp_path, stem)
    clips(tmp_path, "d")

    cache = compat.import_cache(tmp_path, model=WAN)

    assert dropped(cache) == {"d_00000-005_0064x0048_wan.safetensors": "is of a clip in a folder of pictures"}


def test_text_without_latents_is_noted(tmp_path: Path) -> None:
    clips(tmp_path, "a")
    files.text(tmp_path, "short")

    (note,) = compat.import_cache(tmp_path, model=WAN).manifest().notes

    assert Path(note.path).name == "short_wan_te.safetensors"


def test_files_of_other_architectures_in_the_same_folder_are_none_of_its_business(tmp_path: Path) -> None:
    clips(tmp_path, "a")
    files.window(tmp_path, "a", arch="hv", full="hunyuan_video")
    (tmp_path / "model.safetensors").write_bytes(b"")

    cache = compat.import_cache(tmp_path, model=WAN)

    assert len(cache.items()) == 1
    assert not cache.dropped


def test_a_folder_of_another_architecture_says_which(tmp_path: Path) -> None:
    clips(tmp_path, "a")

    with pytest.raises(CacheError, match="holds no cache of qi, only of wan"):
        compat.import_cache(tmp_path, model=QwenImage.text_to_image())


def test_an_empty_folder_and_none_at_all_are_named(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="holds no cache of wan"):
        compat.import_cache(tmp_path, model=WAN)
    with pytest.raises(CacheError, match="gone"):
        compat.import_cache(tmp_path / "gone", model=WAN)


def test_an_import_is_repeated_when_files_were_added(tmp_path: Path) -> None:
    compat.import_cache(clips(tmp_path, "a"), model=WAN)
    clips(tmp_path, "b")

    cache = compat.import_cache(tmp_path, model=WAN)

    assert len(cache.items()) == 2


def test_a_cache_that_was_built_is_not_taken_for_the_references(tmp_path: Path) -> None:
    cache = built(tmp_path)

    with pytest.raises(CacheError, match="holds a cache that musubi built"):
        compat.import_cache(cache.path, model=cache.model)


def test_what_is_imported_is_what_was_encoded(tmp_path: Path) -> None:
    cache = built(tmp_path)
    before = {batch.items[0]: batch["latents"] for batch in epoch(cache)}

    files.disowned(cache.path)
    compat.import_cache(cache.path, model=cache.model)

    after = {batch.items[0]: batch["latents"] for batch in epoch(cache)}
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_build_into_the_folder_encodes_anew_and_leaves_the_references_files_alone(tmp_path: Path) -> None:
    cache = built(tmp_path)
    files.disowned(cache.path)
    foreign = contents(cache.path)
    compat.import_cache(cache.path, model=cache.model)

    cache.build(Dataset.from_folder(tmp_path / "media", resolution=64), progress=False)
    pruned = cache.prune()

    assert not pruned
    assert foreign.items() <= contents(cache.path).items()
    assert not {file.name for file in cache.manifest().files} & foreign.keys()
    assert not cache.verify(progress=False)


def test_numbers_below_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        compat.import_cache(tmp_path, model=WAN, batch_size=0, repeats=0)

    assert [issue.path for issue in caught.value.issues] == ["batch_size", "repeats"]
