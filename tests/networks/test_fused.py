from __future__ import annotations

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musubi.core.errors import WeightsError
from musubi.networks.fused import cut, join, part_rows
from musubi.networks.weights import LoRAWeights
from tests.networks.weighted import lora, weights_of

sizes = st.lists(st.integers(1, 5), min_size=2, max_size=4)


@given(width=st.integers(1, 9), parts=st.integers(2, 4), last=st.integers(1, 40))
def test_all_parts_but_the_last_are_square(width: int, parts: int, last: int) -> None:
    outputs = width * (parts - 1) + last

    rows = part_rows(width, outputs, parts)

    assert rows == (*[width] * (parts - 1), last)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(WeightsError, match="cannot be 3 parts"):
        part_rows(8, 16, 3)


@settings(max_examples=25, deadline=None)
@given(rows=sizes, alpha=st.floats(0.1, 9), decomposed=st.booleans())
def test_what_was_cut_is_joined_bit_by_bit(rows: list[int], alpha: float, decomposed: bool) -> None:
    whole = lora(sum(rows), 7, alpha=alpha)
    whole = attrs.evolve(whole, magnitude=torch.rand(sum(rows))) if decomposed else whole

    again = join(dict(enumerate(cut(whole, rows))), rows)

    assert all(torch.equal(tensor, again.tensors()[role]) for role, tensor in whole.tensors().items())


@settings(max_examples=25, deadline=None)
@given(rows=sizes, alphas=st.lists(st.floats(0.1, 9), min_size=4, max_size=4), data=st.data())
def test_parts_that_were_trained_apart_have_the_same_delta_together(
    rows: list[int], alphas: list[float], data: st.DataObject
) -> None:
    there = data.draw(st.sets(st.sampled_from(range(len(rows))), min_size=1))
    parts = {i: lora(rows[i], 7, rank=i + 1, alpha=alphas[i], seed=i) for i in there}

    whole = join(parts, rows)

    expected = [parts[i].delta() if i in parts else torch.zeros(size, 7) for i, size in enumerate(rows)]
    assert whole.rank == sum(weights.rank for weights in parts.values())
    torch.testing.assert_close(whole.delta(), torch.cat(expected))


def test_only_parts_that_share_their_down_matrix_share_its_rank() -> None:
    first, second = cut(lora(8, 7, rank=3), (4, 4))
    third = lora(4, 7, rank=2, seed=5)

    assert join({0: first, 1: second, 2: third}, (4, 4, 4)).rank == 5


def test_only_loras_can_be_cut() -> None:
    with pytest.raises(WeightsError, match=r"a loha cannot be cut into 2 parts \(hint: .*resized"):
        cut(weights_of("loha"), (3, 3))


def test_magnitudes_must_be_there_for_all_rows_or_none() -> None:
    decomposed = weights_of("dora")
    assert isinstance(decomposed, LoRAWeights)

    with pytest.raises(WeightsError, match="1 of its 2 parts have DoRA's magnitudes"):
        join({0: decomposed, 1: lora()}, (6, 6))
