from __future__ import annotations

from pathlib import Path

import pytest

from musubi.cache.cache import Cache
from musubi.core.errors import CacheError, ConfigError, DataError
from musubi.data.dataset import Dataset
from tests.cache.counting import CountingToy, build, contents
from tests.data.files import picture

CLIPS = tuple(f"dog_00000-00{n}" for n in (1, 5, 9))


def test_against_no_cache_everything_is_new_and_nothing_is_written(tmp_path: Path, dataset: Dataset) -> None:
    model = CountingToy()

    diff = Cache(tmp_path / "cache", model=model).diff(dataset)

    assert diff.added == ("cat", "cow", *CLIPS, "fox")
    assert diff.stages == {"latents": 6, "text": 4}
    assert not diff.empty
    assert model.log == []
    assert not (tmp_path / "cache").exists()


def test_against_its_own_cache_a_dataset_is_unchanged(tmp_path: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset)
    before = contents(tmp_path / "cache")

    diff = Cache(tmp_path / "cache", model=CountingToy()).diff(dataset)

    assert diff.empty
    assert len(diff.unchanged) == 6
    assert contents(tmp_path / "cache") == before


def test_what_a_build_would_do_is_what_it_does(tmp_path: Path, media: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset)
    (media / "cow.txt").write_text("a spotted cow", encoding="utf-8")
    (media / "fox.png").unlink()
    picture(media / "owl.png", size=(64, 64), seed=5, caption="an owl")
    (media / "bad.png").write_bytes(b"nonsense")

    diff = Cache(tmp_path / "cache", model=CountingToy()).diff(dataset)

    assert (diff.added, diff.changed, diff.removed) == (("owl",), ("cow",), ("fox",))
    assert diff.unchanged == ("cat", *CLIPS)
    assert diff.stages == {"latents": 1, "text": 2}
    assert [Path(issue.path).name for issue in diff.problems][-1] == "bad.png"
    assert build(tmp_path / "cache", dataset) == ["load vae", "latents owl", "load text", "text cow", "text owl"]


def test_repeats_change_items_without_encoding(tmp_path: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset)

    diff = Cache(tmp_path / "cache", model=CountingToy()).diff(dataset.repeat(2))

    assert len(diff.changed) == 6
    assert diff.stages == {}


def test_the_words_and_the_card_name_items_up_to_a_point(tmp_path: Path, media: Path, dataset: Dataset) -> None:
    for number in range(9):
        picture(media / f"<{number}>.png", seed=number)

    diff = Cache(tmp_path / "cache", model=CountingToy()).diff(dataset)

    assert "added: 15: <0>, <1>, <2>, <3>, <4>, <5>, <6>, <7>, 7 more" in str(diff)
    assert "to encode: 15 latents, 5 text" in str(diff)
    assert "&lt;0&gt;" in diff._repr_html_()
    assert "to encode: nothing" in str(Cache(tmp_path / "cache", model=CountingToy()).diff(dataset)) or diff.stages


def test_a_dtype_that_is_none_an_empty_dataset_and_a_damaged_manifest_are_refused(
    tmp_path: Path, media: Path, dataset: Dataset
) -> None:
    cache = Cache(tmp_path / "cache", model=CountingToy())
    build(cache.path, dataset)

    with pytest.raises(ConfigError, match="dtype"):
        cache.diff(dataset, dtype="float8")  # type: ignore[arg-type]
    (cache.path / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(CacheError, match="damaged"):
        cache.diff(dataset)
    for path in media.iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError):
        Cache(tmp_path / "other", model=CountingToy()).diff(dataset)
