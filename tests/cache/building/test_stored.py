from __future__ import annotations

from pathlib import Path

import pytest

from musubi.cache import manifest as manifests
from musubi.cache.building.stored import Stored, folded
from musubi.cache.cache import Cache
from musubi.cache.manifest import Manifest
from musubi.data.dataset import Dataset
from musubi.testing.toy import Toy
from tests.cache.making import a_plan


@pytest.fixture
def cache(tmp_path: Path, dataset: Dataset) -> Cache[Toy]:
    return Cache(tmp_path / "cache", model=Toy()).build(dataset, progress=False)


def _stored(cache: Cache[Toy], manifest: Manifest | None = None) -> Stored:
    return Stored(cache.path, manifests.plain(manifest or cache.manifest()))


def test_a_listed_output_is_there_if_its_files_have_their_sizes(cache: Cache[Toy]) -> None:
    first, second, third = list(cache.manifest().outputs.values())[:3]
    (cache.path / second.files[0].name).unlink()
    path = cache.path / third.files[0].name
    path.write_bytes(path.read_bytes() + b"x")

    stored = _stored(cache)

    assert [stored.has(output.fingerprint) for output in (first, second, third)] == [True, False, False]
    assert stored.line(first.fingerprint)["fingerprint"] == first.fingerprint
    assert not stored.has("unknown")


def test_a_name_is_free_for_the_output_that_has_it_and_for_no_other(cache: Cache[Toy]) -> None:
    (cache.path / "empty.safetensors").write_bytes(b"")
    (cache.path / "foreign.safetensors").write_bytes(b"mine")
    output = next(iter(cache.manifest().outputs.values()))
    name = output.files[0].name

    for stored in (_stored(cache), Stored(cache.path, None)):
        assert stored.is_free(name, output.fingerprint)
        assert not stored.is_free(name, "other")
        assert not stored.is_free(name.upper(), "other")
        assert stored.is_free("new.safetensors", "other")
        assert stored.is_free("empty.safetensors", "other"), "nothing is lost"
        assert not stored.is_free("foreign.safetensors", "other")


def test_damaged_lines_of_a_manifest_list_nothing(cache: Cache[Toy]) -> None:
    values = manifests.plain(cache.manifest())
    values["outputs"][0] = {"fingerprint": values["outputs"][0]["fingerprint"]}
    values["outputs"][1] = None

    stored = Stored(cache.path, values)

    assert sum(stored.has(fingerprint) for fingerprint in cache.manifest().outputs) == 8


def test_unlisted_entries_are_found_by_what_they_are_made_of_whatever_they_are_called(
    cache: Cache[Toy], media: Path, dataset: Dataset
) -> None:
    outputs = cache.manifest().outputs
    jobs = a_plan([*dataset.with_geometry(Toy().geometry).scan(progress=False).items], cache.path.parent / "none").jobs
    (cache.path / "cat_toy_te.safetensors").rename(cache.path / "renamed.safetensors")
    cut = cache.path / "cow_toy_te.safetensors"
    cut.write_bytes(cut.read_bytes()[:-1])
    zeroed = cache.path / "fox_toy_te.safetensors"
    zeroed.write_bytes(zeroed.read_bytes()[:-8] + b"\0" * 8)
    (cache.path / ".hidden.safetensors").write_bytes(b"")

    found = {output.fingerprint: output for output in Stored(cache.path, None).found(jobs.values())}

    names = {output.files[0].name for output in found.values()}
    assert len(found) == 8
    assert "renamed.safetensors" in names
    assert not {"cow_toy_te.safetensors", "fox_toy_te.safetensors"} & names
    same = [print_ for print_ in found if found[print_] == outputs[print_]]
    assert len(same) == 7, "all but the renamed one are described as they were"


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert Stored(tmp_path / "none", None).is_free("a", "b")


def test_names_are_folded_as_file_systems_do() -> None:
    assert folded("Ä") == folded("a\u0308")
