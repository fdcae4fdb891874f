from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from musubi.cache import manifest as manifests
from musubi.cache.cache import Cache
from musubi.core.control import CancelToken
from musubi.core.errors import CacheError, DataError
from musubi.core.events import Event, Progress, Warned
from musubi.data.dataset import Dataset
from tests.cache.counting import CountingToy, build, contents
from tests.data.files import clip, picture

ROOT = Path(__file__).parents[2]
KILL_BUILDS = """
import os, signal, sys, time
from musubi.cache.cache import Cache
from musubi.data.dataset import Dataset
from tests.cache.counting import CountingToy

dataset = Dataset.from_folder(sys.argv[1], resolution=64, frames=(1, 5, 9))
for folder, delay_s in (argument.rsplit(":", 1) for argument in sys.argv[2:]):
    child = os.fork()
    if not child:
        slowly = lambda event: time.sleep(0.03)
        Cache(folder, model=CountingToy()).build(dataset, on=[slowly], progress=False)
        os._exit(0)
    time.sleep(float(delay_s))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    print("killed" if os.WIFSIGNALED(status) else "finished")
"""


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

    assert build(tmp_path / "cache", dataset) == []
    assert contents(tmp_path / "cache") == before


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


def test_other_weights_encode_everything(tmp_path: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset)
    other = CountingToy(seed=1)

    Cache(tmp_path / "cache", model=other).build(dataset, progress=False)

    assert len(other.log) == 12


def test_a_removed_item_leaves_the_cache_and_foreign_files_stay(tmp_path: Path, media: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset)
    foreign = tmp_path / "cache" / "mine_0064x0064_toy.safetensors"
    foreign.write_bytes(b"mine")

    (media / "cow.png").unlink()
    log = build(tmp_path / "cache", dataset)

    assert log == []
    assert not list((tmp_path / "cache").glob("cow*"))
    assert foreign.read_bytes() == b"mine"
    assert "cow" not in [cached.item.name for cached in manifests.load(tmp_path / "cache").items]


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
    assert not cache.verify()


def test_strict_building_raises_with_every_problem(tmp_path: Path, media: Path, dataset: Dataset) -> None:
    picture(media / "bare.png", caption=None)
    (media / "cat.png").write_bytes((media / "cat.png").read_bytes()[:300])

    with pytest.raises(DataError) as caught:
        build(tmp_path / "cache", dataset, strict=True)

    assert [Path(issue.path).name for issue in caught.value.issues] == ["bare.png", "cat.png"]
    assert not manifests.exists(tmp_path / "cache")


def test_without_a_usable_item_every_problem_is_raised(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    for name in ("a", "b"):
        (picture(tmp_path / "media" / f"{name}.png")).write_bytes(b"nonsense")

    with pytest.raises(DataError) as caught:
        build(tmp_path / "cache", Dataset.from_folder(tmp_path / "media", resolution=64))

    assert len(caught.value.issues) == 2
    assert not manifests.exists(tmp_path / "cache")


def test_an_entry_that_is_not_finite_is_left_out(tmp_path: Path, media: Path, dataset: Dataset) -> None:
    (media / "cat.txt").write_text("a BROKEN cat", encoding="utf-8")

    build(tmp_path / "cache", dataset)

    cache = Cache(tmp_path / "cache", model=CountingToy())
    assert "cat" not in {cached.item.name for cached in cache.items()}
    assert [issue.message for issue in cache.dropped] == ["the encoder's result is not finite"]


def test_equal_stems_get_entries_of_their_own(tmp_path: Path) -> None:
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
    assert len({file.name.casefold() for file in manifest.files}) == 8


def test_a_cache_of_another_architecture_is_refused(tmp_path: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset)
    manifest = manifests.load(tmp_path / "cache")
    manifests.save(tmp_path / "cache", attrs.evolve(manifest, architecture="other"))

    with pytest.raises(CacheError, match="holds a cache of other, not toy"):
        build(tmp_path / "cache", dataset)


def test_a_damaged_manifest_or_missing_file_is_mended(tmp_path: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset)
    before = contents(tmp_path / "cache")

    (tmp_path / "cache" / "manifest.json").write_text("{", encoding="utf-8")
    assert build(tmp_path / "cache", dataset) == [], "whole files are taken over by their fingerprints"
    (tmp_path / "cache" / "cat_toy_te.safetensors").unlink()
    assert build(tmp_path / "cache", dataset) == ["load text", "text cat"]

    assert contents(tmp_path / "cache") == before


def test_the_encoders_dtype_is_kept_unless_another_is_asked_for(tmp_path: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset, dtype="bfloat16")

    assert build(tmp_path / "cache", dataset) == []
    assert len(build(tmp_path / "cache", dataset, dtype="float32")) == 12


def test_a_cancelled_build_stops_after_the_item_and_is_continued(tmp_path: Path, dataset: Dataset) -> None:
    token = CancelToken()

    def cancel_soon(event: Event) -> None:
        if isinstance(event, Progress) and event.task == "latents" and event.done == 2:
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
    before = contents(tmp_path / "cache")
    token = CancelToken()

    (media / "cat.txt").write_text("a dog", encoding="utf-8")

    def cancel_after_text(event: Event) -> None:
        if isinstance(event, Progress) and event.task == "text":
            token.cancel()

    build(tmp_path / "cache", dataset, on=[cancel_after_text], cancel=token)
    (media / "cat.txt").write_text("a cat", encoding="utf-8")
    build(tmp_path / "cache", dataset)

    assert contents(tmp_path / "cache") == before


@pytest.mark.skipif(os.name != "posix", reason="kills processes with SIGKILL")
def test_a_build_killed_at_any_moment_ends_as_an_undisturbed_one(tmp_path: Path, media: Path, dataset: Dataset) -> None:
    build(tmp_path / "undisturbed", dataset)
    moments = random.Random(0)
    caches = {tmp_path / f"killed{n}": moments.uniform(0.02, 0.5) for n in range(3)}
    arguments = [f"{cache}:{delay_s}" for cache, delay_s in caches.items()]

    killer = subprocess.run(
        [sys.executable, "-c", KILL_BUILDS, media, *arguments], cwd=ROOT, capture_output=True, check=True
    )
    for cache in caches:
        build(cache, dataset)

    assert killer.stdout.split() == [b"killed"] * 3
    assert all(contents(cache) == contents(tmp_path / "undisturbed") for cache in caches)


def test_what_a_killed_build_left_half_written_is_removed(tmp_path: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset)
    before = contents(tmp_path / "cache")
    (tmp_path / "cache" / ".cat_toy_te.safetensors.x1y2.tmp.safetensors").write_bytes(b"half")

    build(tmp_path / "cache", dataset)

    assert contents(tmp_path / "cache") == before
