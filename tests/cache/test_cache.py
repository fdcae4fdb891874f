from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from musubi.cache import manifest as manifests
from musubi.cache.cache import Cache
from musubi.core.errors import CacheError, ConfigError
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

    for verb in (cache.loader, cache.verify, cache.prune):
        with pytest.raises(CacheError, match="not built yet"):
            verb()
    assert cache.dropped == ()
    assert "not built yet" in cache.summary()
    assert "not built yet" in cache._repr_html_()


def test_the_card_is_escaped(tmp_path: Path, dataset: Dataset) -> None:
    cache = Cache(tmp_path / "a<b>", model=Toy()).build(dataset, progress=False)

    assert "a&lt;b&gt;" in cache._repr_html_()


@pytest.mark.parametrize("wrong", [[], ["clips"], "clips", Path("clips")])
def test_what_is_no_dataset_is_refused(tmp_path: Path, wrong: object) -> None:
    with pytest.raises(ConfigError, match="must be a Dataset or several, got"):
        Cache(tmp_path / "cache", model=Toy()).build(wrong, progress=False)  # type: ignore[arg-type]


def test_a_device_or_dtype_that_is_none_is_refused_before_anything_is_done(tmp_path: Path, dataset: Dataset) -> None:
    cache = Cache(tmp_path / "cache", model=Toy())

    with pytest.raises(ConfigError, match="no such device"):
        cache.build(dataset, device="abacus")
    with pytest.raises(ConfigError, match="dtype"):
        cache.build(dataset, dtype="float8")  # type: ignore[arg-type]
    assert not cache.path.exists()


def test_held_out_items_have_a_loader_of_their_own(tmp_path: Path, dataset: Dataset) -> None:
    cache = Cache(tmp_path / "cache", model=Toy()).build(dataset.with_validation(share=0.25), progress=False)

    counts = {split: cache.loader(split=split).items for split in ("train", "validation")}

    assert sum(counts.values()) == 6
    assert 0 < counts["validation"] < 6


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


def test_a_progress_bar_is_shown_for_each_stage_that_has_something_to_do(
    tmp_path: Path, dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = Cache(tmp_path / "cache", model=Toy()).build(dataset)
    shown = capsys.readouterr()
    cache.build(dataset)

    assert "latents: 100%" in shown.err
    assert "text: 100%" in shown.err
    assert not shown.out
    assert "latents" not in capsys.readouterr().err
