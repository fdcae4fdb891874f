from __future__ import annotations

from pathlib import Path

import pytest
import torch

from musubi import Cache, CacheError, Captions, Dataset, Folder
from musubi.testing.toy import Toy
from musubi.training.heldout import held_out
from tests.training.conftest import write_pictures


def build(folder: Path, *, share: float = 0.5, repeats: int = 1, count: int = 8) -> Cache[Toy]:
    pictures = write_pictures(folder / "pictures", count)
    data = Dataset.from_folder(pictures, resolution=48, repeats=repeats).with_geometry(Toy().geometry)
    held = data.with_batch_size(2).with_validation(share=share) if share else data
    return Cache(folder / "cache", model=Toy()).build(held, progress=False)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Cache[Toy]:
    return build(tmp_path_factory.mktemp("held"), repeats=3)


def labels(cache: Cache[Toy], **how: int) -> list[tuple[str, ...]]:
    return [batch.labels for batch in held_out(cache, **how)]


def test_every_held_out_item_is_there_once_however_often_it_is_repeated(held: Cache[Toy]) -> None:
    names = [name for batch in held_out(held) for name in batch.read().items]

    assert sorted(names) == sorted(c.item.name for c in held.items() if c.item.split == "validation")
    assert len(names) == 4


def test_the_batches_are_always_the_same_and_none_mixes_buckets(held: Cache[Toy]) -> None:
    batches = held_out(held)

    assert labels(held) == labels(held)
    assert all(len({unit.item.bucket for unit in batch.units}) == 1 for batch in batches)
    assert all(1 <= len(batch.units) <= 2 for batch in batches)
    assert {batch.read().bucket for batch in batches} == {"64x32", "48x48"}


def test_a_smaller_batch_size_divides_the_same_items(held: Cache[Toy]) -> None:
    one_by_one = labels(held, batch_size=1)

    assert all(len(batch) == 1 for batch in one_by_one)
    assert sorted(sum(one_by_one, ())) == sorted(sum(labels(held), ()))


def test_a_limit_takes_items_by_their_names_and_the_seed(held: Cache[Toy]) -> None:
    chosen = [sum(labels(held, items=2, seed=seed), ()) for seed in (0, 0, 1, 2, 3)]

    assert [len(names) for names in chosen] == [2] * 5
    assert chosen[0] == chosen[1]
    assert len(set(chosen)) > 1
    assert set(sum(labels(held, items=1), ())) <= set(sum(labels(held, items=2), ()))


def test_the_words_are_the_first_caption_never_a_drawn_or_dropped_one(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures", 4)
    for file in pictures.glob("*.txt"):
        file.write_text(f"one two three\n{file.stem} and quite another text", encoding="utf-8")
    source = Folder(pictures, caption_lines=True)
    several = Dataset(sources=(source,), resolution=48, captions=Captions(dropout=0.5))
    cache = Cache(tmp_path / "cache", model=Toy()).build(several.with_validation(share=0.5), progress=False)

    words = [text for batch in held_out(cache) for text in batch.read().each("text")]

    assert [len(text) for text in words] == [3, 3]


def test_a_cache_that_holds_nothing_out_says_how_to(tmp_path: Path) -> None:
    cache = build(tmp_path, share=0.0, count=2)

    with pytest.raises(CacheError, match=r"with_validation\(share"):
        held_out(cache)


def test_a_damaged_entry_is_named(tmp_path: Path) -> None:
    cache = build(tmp_path, count=4)
    (batch, *_) = held_out(cache)
    file = cache.path / batch.units[0].fixed[0].name
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)

    with pytest.raises(CacheError, match=file.name):
        batch.read()


def test_reading_again_gives_the_same_tensors(held: Cache[Toy]) -> None:
    (batch, *_) = held_out(held)

    assert torch.equal(batch.read()["latents"], batch.read()["latents"])
