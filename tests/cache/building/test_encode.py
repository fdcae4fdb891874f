from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import torch

from musubi.cache import format as files
from musubi.cache.building.batches import batches_of
from musubi.cache.building.encode import Made, StageRun
from musubi.cache.building.jobs import Job
from musubi.cache.building.memory import stamp_of
from musubi.cache.building.told import Teller
from musubi.cache.cache import Cache
from musubi.core.control import CancelToken
from musubi.core.errors import CacheError
from musubi.core.events import Event, Progress, Warned
from musubi.data.dataset import Dataset
from tests.cache.counting import CountingToy, contents
from tests.cache.making import LATENTS, TEXT, a_job, an_item
from tests.data.files import picture


def _run(folder: Path, jobs: list[Job], model: CountingToy, heard: list[Event] | None = None) -> Made:
    folder.mkdir(exist_ok=True)
    run = StageRun(
        stage=jobs[0].stage,
        folder=folder,
        model=model,
        codec=model.codec(),
        device=torch.device("cpu"),
        dtype=torch.float32,
        known={},
        tell=Teller((heard.append,) if heard is not None else ()),
        cancel=CancelToken(),
    )
    return run.run(batches_of(jobs), progress=False, title="latents")


def _pictures(folder: Path, count: int) -> list[Job]:
    items = [an_item(str(n), path=picture(folder / f"{n}.png", size=(64, 64), seed=n)) for n in range(count)]
    return [a_job(item) for item in items]


def test_what_is_written_is_what_the_manifest_says(tmp_path: Path) -> None:
    made = _run(tmp_path / "cache", _pictures(tmp_path, 3), CountingToy())

    assert [output.fingerprint for output in made.outputs] == [f"latents {n}" for n in range(3)]
    for output in made.outputs:
        (file,) = output.files
        found = files.examine(tmp_path / "cache" / file.name)
        assert found is not None
        assert (found.bytes, found.sha256, found.key) == (file.bytes, file.sha256, file.key)
        assert found.facts[files.FINGERPRINT] == output.fingerprint


def test_up_to_sixteen_items_of_equal_shape_are_encoded_together(tmp_path: Path) -> None:
    model = CountingToy(room=15)

    _run(tmp_path / "cache", _pictures(tmp_path, 20), model)

    assert len(model.log) == 1 + 16 + 8 + 8 + 4, "16 were too many at once, and then 4"


def test_a_batch_that_needs_too_much_memory_is_halved_until_it_fits(tmp_path: Path) -> None:
    jobs = _pictures(tmp_path, 8)
    model = CountingToy(room=2)

    made = _run(tmp_path / "cache", jobs, model)

    assert len(made.outputs) == 8
    assert not made.failures
    assert len(model.log) == 1 + 8 + 4 + 4 + 2 * 4, "8; 4 and 4; 2, 2, 2 and 2"
    _run(tmp_path / "other", jobs, CountingToy())
    assert contents(tmp_path / "cache") == contents(tmp_path / "other")


def test_an_item_that_does_not_fit_alone_is_named(tmp_path: Path) -> None:
    made = _run(tmp_path / "cache", _pictures(tmp_path, 2), CountingToy(room=0))

    messages = [failed.issues[0].message for _, _, failed in made.failures]
    assert messages == ["needs more memory than there is"] * 2
    assert not made.outputs


def test_of_a_refused_batch_only_the_bad_item_is_lost(tmp_path: Path) -> None:
    items = [an_item(str(n), captions=(f"number {n}" + " REFUSED" * (n == 2),)) for n in range(5)]
    heard: list[Event] = []

    made = _run(tmp_path / "cache", [a_job(item, TEXT) for item in items], CountingToy(), heard)

    assert [output.fingerprint for output in made.outputs] == [f"text {n}" for n in (0, 1, 3, 4)]
    assert [(number, print_, failed.issues[0].path) for number, print_, failed in made.failures] == [(0, "text 2", "2")]
    assert [event.done for event in heard if isinstance(event, Progress)] == [1, 2, 3, 4, 5]
    assert len([event for event in heard if isinstance(event, Warned)]) == 1


def test_of_a_batch_with_a_damaged_picture_the_others_are_encoded(tmp_path: Path) -> None:
    jobs = _pictures(tmp_path, 4)
    jobs[1].item.path.write_bytes(b"nonsense")

    made = _run(tmp_path / "cache", jobs, CountingToy())

    assert [output.fingerprint for output in made.outputs] == [f"latents {n}" for n in (0, 2, 3)]
    assert made.failures[0][1] == "latents 1"


def test_without_a_good_item_no_model_is_loaded(tmp_path: Path) -> None:
    jobs = _pictures(tmp_path, 1)
    jobs[0].item.path.write_bytes(b"nonsense")
    model = CountingToy()

    _run(tmp_path / "cache", jobs, model)

    assert model.log == []


def test_a_file_that_was_changed_since_it_was_hashed_is_refused(tmp_path: Path) -> None:
    (job,) = _pictures(tmp_path, 1)
    changed = attrs.evolve(job, sources=((job.item.path, stamp_of(job.item.path)),))
    picture(job.item.path, size=(64, 64), seed=9)

    made = _run(tmp_path / "cache", [changed], CountingToy())

    assert made.failures[0][2].issues[0].message == "was changed while the cache was built"


def test_parts_are_files_of_one_output_and_are_all_found_again(tmp_path: Path, media: Path, dataset: Dataset) -> None:
    model = CountingToy(parts=3)
    cache = Cache(tmp_path / "cache", model=model).build(dataset, progress=False)
    before = contents(tmp_path / "cache")
    cat = next(cached for cached in cache.items() if cached.item.name == "cat")

    names = [file.name for file in cache.manifest().outputs[cat.outputs["latents"][0]].files]
    (tmp_path / "cache" / "manifest.json").unlink()
    (tmp_path / "cache" / names[1]).unlink()
    again = CountingToy(parts=3)
    Cache(tmp_path / "cache", model=again).build(dataset, progress=False)

    assert names == [f"cat-000{n}_0064x0064_toy.safetensors" for n in range(3)]
    assert again.log == ["load vae", "latents cat", "latents cow"], "its batch is encoded again, the rest is taken over"
    assert contents(tmp_path / "cache") == before


def test_a_full_disk_ends_the_run_and_leaves_no_half_file(tmp_path: Path) -> None:
    jobs = _pictures(tmp_path, 2)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "1_0064x0064_toy.safetensors").mkdir()

    with pytest.raises(CacheError, match=r"1_0064x0064_toy\.safetensors"):
        _run(tmp_path / "cache", jobs, CountingToy())

    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [
        "0_0064x0064_toy.safetensors",
        "1_0064x0064_toy.safetensors",
    ]


def test_latents_are_made_in_inference_mode_from_decoded_pixels(tmp_path: Path) -> None:
    (job,) = _pictures(tmp_path, 1)

    _run(tmp_path / "cache", [job], CountingToy())

    (latents,) = files.load(tmp_path / "cache" / "0_0064x0064_toy.safetensors").values()
    assert latents.shape == (12, 1, 8, 8)
    assert job.stage == LATENTS
