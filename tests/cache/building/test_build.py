from __future__ import annotations

import json
import threading
from pathlib import Path

import attrs
import pytest

from musubi.cache import format as files
from musubi.cache import manifest as manifests
from musubi.cache.cache import Cache
from musubi.core.control import CancelToken
from musubi.core.errors import CacheError, DataError
from musubi.core.events import Event, Progress, Warned
from musubi.data.captions import Captions
from musubi.data.dataset import Dataset
from tests.cache.counting import CountingToy, build, contents
from tests.data.files import clip, picture


def test_components_are_loaded_a_stage_at_a_time_and_windows_share_their_caption(
    tmp_path: Path, dataset: Dataset
) -> None:
    log = build(tmp_path / "cache", dataset)

    clips = [f"dog_00000-00{n}" for n in (1, 5, 9)]
    assert log == [
        "load vae",
        *(f"latents {name}" for name in ("cat", "cow", *clips, "fox")),
        "load text",
        *(f"text {name}" for name in ("cat", "cow", clips[0], "fox")),
    ]


def test_files_are_called_as_the_reference_calls_them(tmp_path: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset)

    latents = ["cat_0064x0064", "cow_0064x0064", "fox_0080x0048", *(f"dog_00000-00{n}_0064x0064" for n in (1, 5, 9))]
    expected = {f"{name}_toy" for name in latents} | {f"{name}_toy_te" for name in ("cat", "cow", "dog", "fox")}
    assert {path.stem for path in (tmp_path / "cache").glob("*.safetensors")} == expected


def test_nothing_is_done_twice(tmp_path: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset)
    before = contents(tmp_path / "cache")
    written = (tmp_path / "cache" / "manifest.json").stat().st_mtime_ns

    assert build(tmp_path / "cache", dataset) == []
    assert contents(tmp_path / "cache") == before
    assert (tmp_path / "cache" / "manifest.json").stat().st_mtime_ns == written


def test_an_edited_caption_encodes_one_text(tmp_path: Path, media: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset)

    (media / "cow.txt").write_text("a spotted cow", encoding="utf-8")

    assert build(tmp_path / "cache", dataset) == ["load text", "text cow"]


def test_a_changed_picture_encodes_its_pixels_alone(tmp_path: Path, media: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset)

    picture(media / "cow.png", size=(64, 64), seed=9, caption=None)

    assert build(tmp_path / "cache", dataset) == ["load vae", "latents cow"]


def test_another_resolution_encodes_all_pixels_and_no_text(tmp_path: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset)

    log = build(tmp_path / "cache", dataset.replace(resolution=(96, 96)))

    assert [line.split()[0] for line in log] == ["load", *["latents"] * 6]


def test_what_does_not_change_the_encoding_encodes_nothing(tmp_path: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset)

    assert build(tmp_path / "cache", dataset.repeat(3).with_batch_size(2).with_validation(share=0.25)) == []
    assert {cached.item.repeats for cached in manifests.load(tmp_path / "cache").items} == {3}


def test_other_weights_encode_everything(tmp_path: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset)
    other = CountingToy(seed=1)

    Cache(tmp_path / "cache", model=other).build(dataset, progress=False)

    assert len(other.log) == 12


def test_every_caption_of_an_item_is_encoded_and_the_blank_one_once_for_all(
    tmp_path: Path, media: Path, dataset: Dataset
) -> None:
    (media / "cow.txt").write_text("a dog", encoding="utf-8")

    log = build(tmp_path / "cache", dataset.with_captions(Captions(trigger="zuzu", dropout=0.1)))

    items = {cached.item.name: cached.outputs["text"] for cached in manifests.load(tmp_path / "cache").items}
    assert log[-4:] == ["text cat", "text cat, caption 2", "text cow", "text fox"], "the dog's caption is the cow's"
    assert items["cow"] == items["dog_00000-005"]
    assert all(len(prints) == 2 for prints in items.values())
    assert len({prints[1] for prints in items.values()}) == 1


def test_further_captions_have_names_of_their_own(tmp_path: Path, media: Path) -> None:
    rows = [{"image_path": "cat.png", "caption": ["one", "two", "three"]}]
    (media / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    build(tmp_path / "cache", Dataset.from_jsonl(media / "rows.jsonl", resolution=64))

    names = {path.name for path in (tmp_path / "cache").glob("*_te.safetensors")}
    assert names == {f"cat{addition}_toy_te.safetensors" for addition in ("", "_c0001", "_c0002")}


def test_a_renamed_file_is_not_encoded_again(tmp_path: Path, media: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset)

    (media / "cow.png").rename(media / "ox.png")
    (media / "cow.txt").rename(media / "ox.txt")
    log = build(tmp_path / "cache", dataset)

    assert log == []
    assert Cache(tmp_path / "cache", model=CountingToy()).verify(progress=False) == ()
    assert "ox" in {cached.item.name for cached in manifests.load(tmp_path / "cache").items}


def test_a_new_file_that_takes_over_a_name_does_not_overwrite_the_entry_of_the_old_one(
    tmp_path: Path, media: Path, dataset: Dataset
) -> None:
    build(tmp_path / "cache", dataset)
    (media / "cow.png").rename(media / "ox.png")
    (media / "cow.txt").rename(media / "ox.txt")
    picture(media / "cow.png", size=(64, 64), seed=7, caption="another cow")

    log = build(tmp_path / "cache", dataset)

    cache = Cache(tmp_path / "cache", model=CountingToy())
    assert log == ["load vae", "latents cow", "load text", "text cow"]
    assert cache.verify(progress=False) == ()
    assert len({file.name for file in cache.manifest().files}) == 12


def test_entries_that_are_not_needed_stay_and_are_taken_up_again(tmp_path: Path, media: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset)
    before = contents(tmp_path / "cache")
    away = tmp_path / "away"
    away.mkdir()

    for name in ("cow.png", "cow.txt", "dog.mp4", "dog.txt"):
        (media / name).rename(away / name)
    assert build(tmp_path / "cache", dataset) == []
    assert len(manifests.load(tmp_path / "cache").items) == 2
    for path in away.iterdir():
        path.rename(media / path.name)

    assert build(tmp_path / "cache", dataset) == []
    assert contents(tmp_path / "cache") == before


def test_foreign_files_are_neither_deleted_nor_overwritten(tmp_path: Path, media: Path, dataset: Dataset) -> None:
    (tmp_path / "cache").mkdir()
    foreign = tmp_path / "cache" / "COW_0064x0064_toy.safetensors"
    foreign.write_bytes(b"mine")

    build(tmp_path / "cache", dataset)

    names = {file.name for file in manifests.load(tmp_path / "cache").files}
    assert foreign.read_bytes() == b"mine"
    assert len(names) == 10
    assert not {"COW_0064x0064_toy.safetensors", "cow_0064x0064_toy.safetensors"} & names


def test_an_empty_or_missing_folder_leaves_the_cache_alone(tmp_path: Path, media: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset)
    before = contents(tmp_path / "cache")

    for path in media.iterdir():
        path.unlink()
    with pytest.raises(DataError, match="nothing to train on"):
        build(tmp_path / "cache", dataset)
    media.rmdir()
    with pytest.raises(DataError, match="cannot read folder"):
        build(tmp_path / "cache", dataset)

    assert contents(tmp_path / "cache") == before


def test_good_items_are_encoded_and_bad_ones_are_listed(tmp_path: Path, media: Path, dataset: Dataset) -> None:
    picture(media / "bare.png", caption=None)
    (media / "cat.png").write_bytes((media / "cat.png").read_bytes()[:300])
    path = clip(media / "eel.mkv", frames=9, size=(256, 256))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    heard: list[Event] = []

    build(tmp_path / "cache", dataset, on=[heard.append])

    cache = Cache(tmp_path / "cache", model=CountingToy())
    names = {cached.item.name for cached in cache.items()}
    assert {"cow", "fox", "dog_00000-009"} <= names
    assert not {"bare", "cat", "eel_00000-009"} & names
    assert {Path(issue.path).name for issue in cache.dropped} == {"bare.png", "cat.png", "eel.mkv"}
    assert len([event for event in heard if isinstance(event, Warned)]) == len(cache.dropped)
    assert not list((tmp_path / "cache").glob("cat*"))
    assert not cache.verify(progress=False)


def test_a_damaged_picture_alone_loads_no_model_again(tmp_path: Path, media: Path, dataset: Dataset) -> None:
    (media / "cat.png").write_bytes((media / "cat.png").read_bytes()[:300])
    build(tmp_path / "cache", dataset)

    assert build(tmp_path / "cache", dataset) == []


def test_strict_building_raises_with_every_problem(tmp_path: Path, media: Path, dataset: Dataset) -> None:
    picture(media / "bare.png", caption=None)
    (media / "cat.txt").write_text("a BROKEN cat", encoding="utf-8")

    with pytest.raises(DataError) as first:
        build(tmp_path / "cache", dataset, strict=True)
    (media / "bare.png").unlink()
    with pytest.raises(DataError) as second:
        build(tmp_path / "cache", dataset, strict=True)

    raised = [Path(issue.path).name for error in (first, second) for issue in error.value.issues]
    assert raised == ["bare.png", "cat.png"]
    assert not manifests.exists(tmp_path / "cache")


def test_without_a_usable_item_every_problem_is_raised_and_no_folder_is_made(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    for name in ("a", "b"):
        (picture(tmp_path / "media" / f"{name}.png")).write_bytes(b"nonsense")

    with pytest.raises(DataError) as caught:
        build(tmp_path / "cache", Dataset.from_folder(tmp_path / "media", resolution=64))

    assert len(caught.value.issues) == 2
    assert not (tmp_path / "cache").exists()


def test_an_entry_that_is_not_finite_is_left_out(tmp_path: Path, media: Path, dataset: Dataset) -> None:
    (media / "cat.txt").write_text("a BROKEN cat", encoding="utf-8")

    build(tmp_path / "cache", dataset)

    cache = Cache(tmp_path / "cache", model=CountingToy())
    assert {cached.item.name for cached in cache.items()} == {"cow", "fox", *(f"dog_00000-00{n}" for n in (1, 5, 9))}
    assert [issue.message for issue in cache.dropped] == ["the encoder's result is not finite"]


def test_a_file_in_the_cache_folders_place_is_named(tmp_path: Path, dataset: Dataset) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")

    with pytest.raises(CacheError, match="is a file, not a folder"):
        build(tmp_path / "file", dataset)


def test_equal_stems_get_entries_of_their_own_and_equal_rows_share_theirs(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    rows = []
    for n, name in enumerate(("a.png", "a.jpg", "A.webp")):
        picture(media / name, seed=n, caption=None)
        rows.append(json.dumps({"image_path": name, "caption": f"number {n}"}))
    (media / "rows.jsonl").write_text("\n".join([*rows, rows[0]]), encoding="utf-8")

    build(tmp_path / "cache", Dataset.from_jsonl(media / "rows.jsonl", resolution=64))

    manifest = manifests.load(tmp_path / "cache")
    assert len(manifest.items) == 4
    assert len({file.name.casefold() for file in manifest.files}) == 6
    assert manifest.items[0].outputs == manifest.items[3].outputs


def test_several_datasets_share_a_cache_each_with_its_own_resolution(tmp_path: Path, dataset: Dataset) -> None:
    model = CountingToy()

    Cache(tmp_path / "cache", model=model).build(
        [dataset, dataset.replace(resolution=(96, 96)).repeat(2)], progress=False
    )

    manifest = manifests.load(tmp_path / "cache")
    assert {(cached.item.repeats, cached.item.bucket_label) for cached in manifest.items} >= {
        (1, "64x64"),
        (2, "96x96"),
    }
    assert len([line for line in model.log if line.startswith("latents")]) == 12
    assert len([line for line in model.log if line.startswith("text")]) == 4, "captions are shared"


def test_masks_are_a_stage_of_those_that_have_one(tmp_path: Path, media: Path) -> None:
    picture(media / "cat_hole.png", size=(64, 64), caption=None)
    rows = [{"image_path": f"{name}.png", "caption": name} for name in ("cat", "cow")]
    rows[0]["mask_path"] = "cat_hole.png"
    (media / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    build(tmp_path / "cache", Dataset.from_jsonl(media / "rows.jsonl", resolution=64))

    manifest = manifests.load(tmp_path / "cache")
    assert manifest.stages == ("latents", "text", "mask")
    assert [set(cached.outputs) for cached in manifest.items] == [{"latents", "text", "mask"}, {"latents", "text"}]
    (mask,) = files.load(tmp_path / "cache" / "cat_0064x0064_toy_mask.safetensors").values()
    assert mask.shape == (1, 8, 8)


def test_a_cache_of_another_architecture_is_refused(tmp_path: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset)
    manifest = manifests.load(tmp_path / "cache")
    manifests.save(tmp_path / "cache", attrs.evolve(manifest, architecture="other"))

    with pytest.raises(CacheError, match="holds a cache of other, not toy"):
        build(tmp_path / "cache", dataset)


@pytest.mark.parametrize("text", ["{", '{"format": 1}', '{"format": 2}', "[]"])
def test_a_damaged_or_older_manifest_is_told_of_and_its_entries_are_kept(
    tmp_path: Path, dataset: Dataset, text: str
) -> None:
    build(tmp_path / "cache", dataset)
    before = contents(tmp_path / "cache")
    heard: list[Event] = []

    (tmp_path / "cache" / "manifest.json").write_text(text, encoding="utf-8")
    log = build(tmp_path / "cache", dataset, on=[heard.append])

    assert log == [], "whole files are taken over by their fingerprints"
    assert contents(tmp_path / "cache") == before
    assert len([event for event in heard if isinstance(event, Warned)]) == 1


def test_a_missing_and_a_cut_off_file_are_made_again_under_their_names(tmp_path: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset)
    before = contents(tmp_path / "cache")
    cut = tmp_path / "cache" / "cow_toy_te.safetensors"

    (tmp_path / "cache" / "cat_toy_te.safetensors").unlink()
    cut.write_bytes(cut.read_bytes()[:-1])
    log = build(tmp_path / "cache", dataset)

    assert log == ["load text", "text cat", "text cow"]
    assert contents(tmp_path / "cache") == before


def test_the_encoders_dtype_is_kept_unless_another_is_asked_for(tmp_path: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset, dtype="bfloat16")

    assert build(tmp_path / "cache", dataset) == []
    assert len(build(tmp_path / "cache", dataset, dtype="float32")) == 12


def test_a_cancelled_build_stops_after_the_batch_and_is_continued(tmp_path: Path, dataset: Dataset) -> None:
    token = CancelToken()

    def cancel_soon(event: Event) -> None:
        if isinstance(event, Progress) and event.task == "latents" and event.done == 1:
            token.cancel()

    first = build(tmp_path / "cache", dataset, on=[cancel_soon], cancel=token)
    assert first == ["load vae", "latents cat", "latents cow"]
    assert not manifests.exists(tmp_path / "cache")

    second = build(tmp_path / "cache", dataset)

    assert "latents cow" not in second
    build(tmp_path / "undisturbed", dataset)
    assert contents(tmp_path / "cache") == contents(tmp_path / "undisturbed")


def test_a_reverted_change_after_an_interruption_does_not_leave_the_wrong_entry(
    tmp_path: Path, media: Path, dataset: Dataset
) -> None:
    build(tmp_path / "cache", dataset)
    token = CancelToken()
    (media / "cat.txt").write_text("a dog", encoding="utf-8")

    def cancel_after_text(event: Event) -> None:
        if isinstance(event, Progress) and event.task == "text":
            token.cancel()

    build(tmp_path / "cache", dataset, on=[cancel_after_text], cancel=token)
    (media / "cat.txt").write_text("a cat", encoding="utf-8")
    build(tmp_path / "cache", dataset)

    build(tmp_path / "undisturbed", dataset)
    assert manifests.load(tmp_path / "cache") == manifests.load(tmp_path / "undisturbed")


def test_what_a_killed_build_left_half_written_is_removed(tmp_path: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset)
    before = contents(tmp_path / "cache")
    (tmp_path / "cache" / ".cat_toy_te.0123456789ab.tmp.safetensors").write_bytes(b"half")

    build(tmp_path / "cache", dataset)

    assert contents(tmp_path / "cache") == before


def test_an_error_of_a_listener_stops_the_build_and_no_thread_is_left(tmp_path: Path, dataset: Dataset) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.task == "latents":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "cache", dataset, on=[stop])

    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("musubi")]
    assert not list((tmp_path / "cache").glob(".*.tmp*"))
    assert len(build(tmp_path / "cache", dataset)) == 12, "only the first of its batch was written"


def test_a_manifest_that_was_cut_off_still_says_what_the_encoders_ran_in(tmp_path: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset, dtype="bfloat16")
    manifest = tmp_path / "cache" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:200])

    assert not [entry for entry in build(tmp_path / "cache", dataset) if not entry.startswith("load")]
