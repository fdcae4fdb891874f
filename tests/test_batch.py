from __future__ import annotations

import attrs
import pytest
import torch

from musubi.batch import Entry, batch_key, collate
from musubi.core.errors import CacheError


def entry(words: int, width: int = 4) -> dict[str, torch.Tensor]:
    return {"latents": torch.full((2, 1, 4, width), float(words)), "varlen_text": torch.ones(words, 8)}


def test_what_is_ragged_does_not_count_for_the_batch_key() -> None:
    assert batch_key(entry(1)) == batch_key(entry(9)) == "latents:2x1x4x4"
    assert Entry(name="a", tensors=entry(1)).key == "latents:2x1x4x4"


def test_shapes_and_names_make_the_batch_key_in_any_order() -> None:
    assert batch_key(entry(1)) != batch_key(entry(1, width=6))
    one, other = torch.ones(1), torch.ones(2)
    assert batch_key({"b": one, "a": other}) == batch_key({"a": other, "b": one}) == "a:2 b:1"


def test_collating_stacks_what_agrees_and_keeps_what_is_ragged() -> None:
    batch = collate([entry(1), entry(0), entry(3)], items=["a", "b", "c"], bucket="x")

    assert len(batch) == 3
    assert batch["latents"].shape == (3, 2, 1, 4, 4)
    assert [text.shape[0] for text in batch.each("text")] == [1, 0, 3]
    assert batch.items == ("a", "b", "c")


def test_moving_a_batch_moves_every_tensor() -> None:
    batch = collate([entry(2)], items=["a"], bucket="x").to("meta")

    assert batch["latents"].is_meta
    assert all(text.is_meta for text in batch.each("text"))


def test_an_absent_tensor_says_what_is_there() -> None:
    batch = collate([entry(2)], items=["a"], bucket="x")

    with pytest.raises(CacheError, match="control: only latents is there"):
        _ = batch["control"]
    with pytest.raises(CacheError, match="varlen_t5: only varlen_text is there"):
        batch.each("t5")


def test_some_items_are_a_batch_of_their_own() -> None:
    entries = [entry(1), entry(0), entry(3)]
    whole = attrs.evolve(collate(entries, items=["a", "b", "c"], bucket="x"), weights=(1.0, 2.0, 3.0))

    some = whole.select([2, 0])

    assert (some.items, some.weights, some.bucket) == (("c", "a"), (3.0, 1.0), "x")
    assert torch.equal(some["latents"], whole["latents"][[2, 0]])
    assert [len(text) for text in some.each("text")] == [3, 1]
