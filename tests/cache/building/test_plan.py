from __future__ import annotations

import os
import time
from pathlib import Path

import attrs
import pytest

from musubi.cache.cache import Cache
from musubi.core.errors import Issue
from musubi.data.dataset import Dataset
from musubi.data.sample import Item, Window
from musubi.testing.toy import Toy
from tests.cache.making import a_plan, an_item
from tests.data.files import picture


@pytest.fixture
def cat(tmp_path: Path) -> Item:
    return an_item("cat", path=picture(tmp_path / "cat.png", size=(64, 64), seed=1, caption="a cat"))


def _names(plan_folder: Path, items: list[Item]) -> list[str]:
    return [job.file_names(1)[0] for job in a_plan(items, plan_folder).jobs.values()]


def test_equal_outputs_are_one_job_called_after_its_first_user(tmp_path: Path, cat: Item) -> None:
    twin = attrs.evolve(cat, name="twin", media="twin")

    plan = a_plan([cat, twin], tmp_path / "cache")

    assert plan.needs["cat"] == plan.needs["twin"]
    assert [job.media for job in plan.jobs.values()] == ["cat", "cat"]
    assert set(plan.users().values()) == {frozenset({"cat", "twin"})}
    assert plan.missing == tuple(plan.jobs.values())


def test_each_caption_has_an_output_and_so_has_the_blank_one(tmp_path: Path, cat: Item) -> None:
    item = attrs.evolve(cat, captions=("one", "two", "one"), dropout=0.1)

    plan = a_plan([item, attrs.evolve(cat, name="b", captions=("",), dropout=0.1)], tmp_path / "cache")

    first, second = plan.needs["cat"]["text"], plan.needs["b"]["text"]
    assert (len(first), len(second)) == (4, 2)
    assert first[0] == first[2]
    assert {first[3]} == set(second)
    assert [job.caption for job in plan.jobs.values()] == [None, "one", "two", ""]


def test_names_that_some_file_systems_take_for_equal_are_kept_apart(tmp_path: Path, cat: Item) -> None:
    shouting = attrs.evolve(cat, name="CAT", media="CAT", captions=("A CAT",), window=Window(0, 1), bucket=(32, 32))

    names = _names(tmp_path / "cache", [cat, shouting])

    assert len({name.casefold() for name in names}) == 4
    assert names[:2] == ["cat_0064x0064_toy.safetensors", "cat_toy_te.safetensors"]


def test_names_of_parts_count_as_taken(tmp_path: Path, cat: Item) -> None:
    clip = attrs.evolve(cat, kind="video", window=Window(0, 5))
    odd = an_item("cat_00000-005-0000", path=picture(tmp_path / "odd.png", size=(64, 64), seed=2), captions=("b",))

    names = _names(tmp_path / "cache", [clip, odd])

    assert names[2].startswith("cat_00000-005-0000-")


def test_an_item_whose_file_cannot_be_read_is_reported_and_leaves_no_job(tmp_path: Path, cat: Item) -> None:
    report: list[Issue] = []
    gone = an_item("gone", path=tmp_path / "gone.png")

    plan = a_plan([gone, cat], tmp_path / "cache", report=report)

    assert [item.name for item in plan.items] == ["cat"]
    assert [Path(issue.path).name for issue in report] == ["gone.png"]
    assert {job.item.name for job in plan.jobs.values()} == {"cat"}


def test_what_the_manifest_lists_is_no_job_and_what_lies_there_unlisted_is_one_that_is_done(
    tmp_path: Path, media: Path, dataset: Dataset
) -> None:
    model = Toy()
    cache = Cache(tmp_path / "cache", model=model).build(dataset, progress=False)
    items = [cached.item for cached in cache.items()]
    items = [attrs.evolve(item, path=media / item.path.name) for item in items]

    listed = a_plan(items, cache.path)
    (cache.path / "manifest.json").unlink()
    unlisted = a_plan(items, cache.path)
    for path in cache.path.glob("cow*"):
        path.unlink()
    without_cow = a_plan(items, cache.path)

    assert (len(listed.jobs), listed.outputs) == (0, {})
    assert len(unlisted.jobs) == len(unlisted.outputs) == 10
    assert unlisted.missing == ()
    assert [job.item.name for job in without_cow.missing] == ["cow", "cow"]


def test_planning_is_quick(tmp_path: Path) -> None:
    """Ten thousand items in a second and a half on a fast machine: here a tenth of it, with room for a slow one."""
    source = picture(tmp_path / "a.png", size=(64, 64))
    os.utime(source, (0, 0))
    items = [an_item(str(n), path=source, captions=(str(n),)) for n in range(1000)]
    began = time.process_time()
    plan = a_plan(items, tmp_path / "cache")

    assert len(plan.jobs) == 1001
    assert time.process_time() - began < 3
