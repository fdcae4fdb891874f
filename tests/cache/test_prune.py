from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from musubi.cache import format as files
from musubi.cache import manifest as manifests
from musubi.cache.cache import Cache
from musubi.core.errors import CacheError
from musubi.data.dataset import Dataset
from musubi.testing.toy import Toy
from tests.cache.counting import contents

TEMPORARY = ".cat_toy_te.0123456789ab.tmp.safetensors"


@pytest.fixture
def cache(tmp_path: Path, dataset: Dataset) -> Cache[Toy]:
    return Cache(tmp_path / "cache", model=Toy()).build(dataset, progress=False)


def test_a_fresh_cache_has_nothing_to_prune(cache: Cache[Toy]) -> None:
    before = contents(cache.path)

    assert cache.prune() == ()
    assert contents(cache.path) == before


def test_only_what_nothing_needs_is_deleted(cache: Cache[Toy], media: Path, dataset: Dataset) -> None:
    (media / "cow.txt").write_text("a spotted cow", encoding="utf-8")
    (media / "fox.png").unlink()
    cache.build(dataset, progress=False)
    (cache.path / TEMPORARY).write_bytes(b"half")
    listed = {file.name for file in cache.manifest().files}
    expected = ("cow_toy_te.safetensors", "fox_0080x0048_toy.safetensors", "fox_toy_te.safetensors")

    assert cache.prune(dry_run=True) == (TEMPORARY, *expected)
    assert (cache.path / TEMPORARY).exists()
    assert cache.prune() == (TEMPORARY, *expected)

    assert set(contents(cache.path)) == {*listed, "manifest.json"}
    assert cache.verify(progress=False) == ()
    assert cache.prune() == ()


def test_foreign_files_stay(cache: Cache[Toy]) -> None:
    listed = cache.manifest().files[0].name
    made = files.load(cache.path / listed)
    foreign = {
        "reference_0064x0064_toy.safetensors": files.dump(made, {"architecture": "toy", "width": "64"}),
        "other_wan_te.safetensors": files.dump(made, {"architecture": "wan", files.FINGERPRINT: "f"}),
        "notes.safetensors": b"nonsense",
        "notes.txt": b"words",
        ".cat.tmp.safetensors": b"",
    }
    for name, data in foreign.items():
        (cache.path / name).write_bytes(data)
    (cache.path / "folder.safetensors").mkdir()

    assert cache.prune() == ()

    assert all((cache.path / name).read_bytes() == data for name, data in foreign.items())


def test_a_cut_off_entry_of_ours_is_deleted(cache: Cache[Toy]) -> None:
    data = (cache.path / "cat_toy_te.safetensors").read_bytes()
    (cache.path / "old_toy_te.safetensors").write_bytes(data[:-3])

    assert cache.prune() == ("old_toy_te.safetensors",)


def test_without_a_manifest_or_with_an_empty_one_nothing_is_deleted(cache: Cache[Toy]) -> None:
    manifest = cache.manifest()
    manifests.save(cache.path, attrs.evolve(manifest, items=(), outputs={}))
    with pytest.raises(CacheError, match="the cache holds no item"):
        cache.prune()
    (cache.path / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(CacheError, match="damaged manifest"):
        cache.prune()
    (cache.path / "manifest.json").unlink()
    with pytest.raises(CacheError, match="not built yet"):
        cache.prune()

    assert len(list(cache.path.glob("*.safetensors"))) == 10
