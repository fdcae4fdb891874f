from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from musubi.cache import manifest as manifests
from musubi.cache.cache import Cache
from musubi.core.errors import CacheError
from musubi.data.dataset import Dataset
from musubi.testing.toy import Toy
from tests.cache.counting import build


def test_the_path_is_the_one_positional_argument() -> None:
    assert Cache("cache/a", model=Toy()) == Cache(path=Path("cache/a"), model=Toy())


def test_a_cache_survives_toml() -> None:
    cache = Cache("cache/a", model=Toy())

    assert Cache.from_toml(cache.to_toml(), plugins=[Toy]) == cache


def test_building_returns_the_cache_and_an_already_built_one_needs_no_dataset(tmp_path: Path, dataset: Dataset) -> None:
    cache = Cache(tmp_path / "cache", model=Toy())
    assert not cache.exists

    assert cache.build(dataset, progress=False) is cache

    again = Cache(tmp_path / "cache", model=Toy())
    assert again.exists
    assert len(again.items()) == 6
    assert again.loader().items == 6


def test_a_cache_that_is_not_built_says_what_to_do_and_still_has_a_face(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", model=Toy())

    with pytest.raises(CacheError, match="not built yet"):
        cache.loader()
    assert cache.dropped == ()
    assert "not built yet" in cache.summary()
    assert "not built yet" in cache._repr_html_()


def test_the_summary_and_the_card_show_items_buckets_stages_and_size(tmp_path: Path, dataset: Dataset) -> None:
    cache = Cache(tmp_path / "a<b>", model=Toy()).build(dataset, progress=False)

    assert "items: 6" in cache.summary()
    assert "64x64: 2, 64x64x1: 1, 64x64x5: 1, 64x64x9: 1, 80x48: 1" in cache.summary()
    assert "stages: latents, text" in cache.summary()
    assert "a&lt;b&gt;" in cache._repr_html_()


def test_verify_finds_a_flipped_bit_a_missing_and_a_truncated_file(tmp_path: Path, dataset: Dataset) -> None:
    cache = Cache(tmp_path / "cache", model=Toy()).build(dataset, progress=False)
    assert cache.verify() == ()

    flipped, cut, gone = (tmp_path / "cache" / f"{name}_toy_te.safetensors" for name in ("cat", "cow", "dog"))
    flipped.write_bytes(flipped.read_bytes()[:-1] + bytes([flipped.read_bytes()[-1] ^ 1]))
    cut.write_bytes(cut.read_bytes()[:-1])
    gone.unlink()

    found = {Path(issue.path).name: issue.message for issue in cache.verify()}
    assert found.keys() == {flipped.name, cut.name, gone.name}
    assert found[gone.name] == "is missing"


def test_the_content_hash_changes_with_a_caption(tmp_path: Path, media: Path, dataset: Dataset) -> None:
    cache = Cache(tmp_path / "cache", model=Toy()).build(dataset, progress=False)
    before = cache.fingerprint_of_content()

    assert cache.build(dataset, progress=False).fingerprint_of_content() == before
    (media / "cat.txt").write_text("another cat", encoding="utf-8")

    assert cache.build(dataset, progress=False).fingerprint_of_content() != before


def test_a_cache_opened_with_another_model_is_refused(tmp_path: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset)
    manifests.save(tmp_path / "cache", attrs.evolve(manifests.load(tmp_path / "cache"), architecture="other"))

    with pytest.raises(CacheError, match="open it with the model it was built for"):
        Cache(tmp_path / "cache", model=Toy()).items()


def test_a_progress_bar_is_shown_for_each_stage(
    tmp_path: Path, dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    Cache(tmp_path / "cache", model=Toy()).build(dataset)

    shown = capsys.readouterr()
    assert "latents: 100%" in shown.err
    assert "text: 100%" in shown.err
    assert not shown.out
