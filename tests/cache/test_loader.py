from __future__ import annotations

import json
import threading
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musubi import Captions, Folder
from musubi.batch import Batch
from musubi.cache.loader import Loader, Position
from musubi.core.errors import CacheError, ConfigError
from musubi.data.dataset import Dataset
from tests.cache.counting import build
from tests.data.files import picture


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache of seven pictures in two buckets, each twice in an epoch, in batches of up to two."""
    root = tmp_path_factory.mktemp("loader")
    (root / "media").mkdir()
    for n in range(7):
        size = (64, 64) if n < 4 else (80, 48)
        picture(root / "media" / f"{n}.png", size=size, seed=n, caption="word " * (n + 1))
    dataset = Dataset.from_folder(root / "media", resolution=64, repeats=2, batch_size=2)
    build(root / "cache", dataset)
    return root / "cache"


def _drawn(loader: Loader, position: Position, count: int) -> list[tuple[Position, Batch]]:
    return list(islice(loader.batches(position), count))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**64), epoch=st.integers(0, 1000))
def test_an_epoch_has_every_item_as_often_as_it_is_repeated(folder: Path, seed: int, epoch: int) -> None:
    loader = Loader(folder, seed=seed)

    batches = loader.epoch(epoch)

    assert Counter(name for batch in batches for name in batch) == {str(n): 2 for n in range(7)}
    assert len(batches) == len(loader) == 4 + 3
    assert all(len({int(name) < 4 for name in batch}) == 1 for batch in batches), "no batch mixes buckets"


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 100), epoch=st.integers(0, 5))
def test_the_order_depends_on_seed_and_epoch_alone(folder: Path, seed: int, epoch: int) -> None:
    torch.manual_seed(seed)

    assert Loader(folder, seed=seed).epoch(epoch) == Loader(folder, seed=seed).epoch(epoch)
    assert len({Loader(folder, seed=s).epoch(epoch) for s in range(seed, seed + 4)}) > 1
    assert len({Loader(folder, seed=seed).epoch(e) for e in range(epoch, epoch + 4)}) > 1


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 100), skipped=st.integers(0, 20))
def test_batches_from_a_position_are_those_of_an_undisturbed_run(folder: Path, seed: int, skipped: int) -> None:
    whole = _drawn(Loader(folder, seed=seed), Position(), skipped + 3)
    position = whole[skipped - 1][0] if skipped else Position()

    rest = _drawn(Loader(folder, seed=seed), position, 3)

    assert [(p, b.items) for p, b in rest] == [(p, b.items) for p, b in whole[skipped:]]
    assert all(torch.equal(a["latents"], b["latents"]) for (_, a), (_, b) in zip(rest, whole[skipped:], strict=True))


def test_positions_name_the_next_batch_and_move_on_to_the_next_epoch(folder: Path) -> None:
    positions = [position for position, _ in _drawn(Loader(folder), Position(), 8)]

    assert positions == [*(Position(0, n) for n in range(1, 7)), Position(1, 0), Position(1, 1)]


@given(world=st.integers(1, 9), start=st.integers(0, 15))
@settings(deadline=None, max_examples=20)
def test_ranks_together_take_what_one_process_takes(folder: Path, world: int, start: int) -> None:
    one = Loader(folder, seed=5)
    expected = [batch.items for _, batch in _drawn(one, one.position(start), 2 * world)]

    dealt = [_drawn(Loader(folder, seed=5, rank=rank, world=world), one.position(start), 2) for rank in range(world)]

    assert [dealt[i % world][i // world][1].items for i in range(2 * world)] == expected
    assert all([after for after, _ in own] == [one.position(start + world * n) for n in (1, 2)] for own in dealt)


def test_a_batch_has_the_tensors_of_all_stages_of_its_items(folder: Path) -> None:
    for _, batch in _drawn(Loader(folder), Position(), 7):
        assert batch["latents"].shape[0] == len(batch) == len(batch.each("text"))
        assert [len(words) for words in batch.each("text")] == [int(name) + 1 for name in batch.items]
        assert batch.bucket in {"64x64", "80x48"}


def test_the_batch_size_of_the_dataset_may_be_overruled(folder: Path) -> None:
    loader = Loader(folder, batch_size=5)

    assert sorted(len(batch) for batch in loader.epoch(0)) == [1, 3, 5, 5]
    assert len(loader) == 4


def test_a_missing_file_is_an_error_at_once(tmp_path: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset)
    (tmp_path / "cache" / "cat_toy_te.safetensors").unlink()

    with pytest.raises(CacheError, match=r"cat_toy_te\.safetensors: is missing"):
        Loader(tmp_path / "cache")


def test_a_damaged_file_is_an_error_with_its_path_when_its_batch_is_read(tmp_path: Path, dataset: Dataset) -> None:
    build(tmp_path / "cache", dataset)
    path = tmp_path / "cache" / "cat_toy_te.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))

    with pytest.raises(CacheError, match=r"cat_toy_te\.safetensors: its content is not what was written"):
        _drawn(Loader(tmp_path / "cache"), Position(), 6)


@pytest.fixture(scope="module")
def worded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache of four pictures with captions of two, three and four words, dropped in a quarter of the draws."""
    root = tmp_path_factory.mktemp("worded")
    (root / "media").mkdir()
    for n in range(4):
        picture(root / "media" / f"{n}.png", seed=n, caption="one two\none two three\none two three four")
    source = Folder(root / "media", caption_lines=True)
    dataset = Dataset(sources=(source,), resolution=64, captions=Captions(dropout=0.25), repeats=2)
    build(root / "cache", dataset)
    return root / "cache"


def _words(loader: Loader, epochs: int) -> list[int]:
    drawn = _drawn(loader, Position(), epochs * len(loader))
    return [len(words) for _, batch in drawn for words in batch.each("text")]


def test_every_draw_takes_one_of_an_items_captions_or_none(worded: Path) -> None:
    drawn = Counter(_words(Loader(worded, seed=3), epochs=50))

    assert set(drawn) == {0, 2, 3, 4}
    assert all(60 < drawn[words] < 140 for words in drawn), "each is a quarter of 400"


def test_captions_depend_on_seed_and_epoch_and_repeats_draw_their_own(worded: Path) -> None:
    first, again, other = (_words(Loader(worded, seed=s), epochs=3) for s in (0, 0, 1))

    assert first == again != other
    assert first[:8] != first[8:16]
    batches = [batch for _, batch in _drawn(Loader(worded), Position(), 80)]
    seen: dict[str, set[tuple[int, ...]]] = {}
    for epoch in range(10):
        pairs: dict[str, list[int]] = {}
        for batch in batches[epoch * 8 : epoch * 8 + 8]:
            pairs.setdefault(batch.items[0], []).append(len(batch.each("text")[0]))
        for name, pair in pairs.items():
            seen.setdefault(name, set()).add(tuple(sorted(pair)))
    assert any(len(set(pair)) > 1 for pairs_seen in seen.values() for pair in pairs_seen)


def test_a_resumed_epoch_draws_the_captions_of_an_undisturbed_one(worded: Path) -> None:
    whole = _drawn(Loader(worded), Position(), 20)

    rest = _drawn(Loader(worded), whole[10][0], 9)

    assert [[len(w) for w in b.each("text")] for _, b in rest] == [
        [len(w) for w in b.each("text")] for _, b in whole[11:]
    ]


def test_what_is_held_out_is_drawn_on_its_own(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    for n in range(8):
        picture(tmp_path / "media" / f"{n}.png", seed=n)
    build(tmp_path / "cache", Dataset.from_folder(tmp_path / "media", resolution=64).with_validation(share=0.25))

    train, held_out = Loader(tmp_path / "cache"), Loader(tmp_path / "cache", split="validation")

    trained, measured = ({name for batch in loader.epoch(0) for name in batch} for loader in (train, held_out))
    assert (train.items, held_out.items, len(trained), len(measured)) == (6, 2, 6, 2)
    assert trained.isdisjoint(measured)


def test_a_cache_without_validation_says_how_to_hold_some_out(folder: Path) -> None:
    with pytest.raises(CacheError, match=r"holds no item for validation \(hint: .*with_validation"):
        Loader(folder, split="validation")


def test_a_split_that_is_none_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="must be one of train, validation, got 'val'"):
        Loader(folder, split="val")  # type: ignore[arg-type]


def test_batches_carry_the_weights_of_their_items(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", seed=1)
    rows = [{"image_path": f"{name}.png", "caption": "x", "weight": weight} for name, weight in (("a", 0.5), ("b", 2))]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    build(tmp_path / "cache", Dataset.from_jsonl(path, resolution=64, batch_size=2))

    _, batch = next(Loader(tmp_path / "cache").batches())

    assert dict(zip(batch.items, batch.weights, strict=True)) == {"a": 0.5, "b": 2.0}


def test_the_background_thread_ends_with_the_iterator(folder: Path) -> None:
    batches = Loader(folder).batches()
    next(batches)
    assert any(thread.name.startswith("musubi-loader") for thread in threading.enumerate())

    batches.close()

    assert not any(thread.name.startswith("musubi-loader") for thread in threading.enumerate())
