from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musubi.attention.ragged import cropped, ragged

CPU = torch.device("cpu")


def test_samples_of_one_length_need_nothing_said() -> None:
    assert ragged([5], device=CPU) is None
    assert ragged([4, 4, 4], more=7, device=CPU) is None


@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=5).filter(lambda counts: len(set(counts)) > 1), st.integers(0, 9)
)
def test_samples_of_several_lengths_are_told_by_their_counts_and_ends(counts: list[int], more: int) -> None:
    found = ragged(counts, more=more, device=CPU)

    assert found is not None
    assert found.counts == tuple(count + more for count in counts)
    assert found.ends.dtype == torch.int32
    assert found.ends.diff().tolist() == list(found.counts)
    assert found.ends[0] == 0


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(0, 3))
def test_text_is_cut_where_the_longest_ends(counts: list[int], padding: int) -> None:
    length = max(counts) + padding
    text = torch.arange(len(counts) * length * 2).reshape(len(counts), length, 2)
    mask = torch.arange(length)[None] < torch.tensor(counts)[:, None]

    short, found = cropped(text, mask)

    assert found == tuple(counts)
    assert torch.equal(short, text[:, : max(counts)])


def test_without_a_mask_all_text_counts() -> None:
    text = torch.zeros(2, 3, 4)

    assert cropped(text, None) == (text, (3, 3))


@pytest.mark.parametrize("row", [[0, 1, 1], [1, 0, 1]])
def test_padding_before_or_within_the_text_is_not_taken_for_text(row: list[int]) -> None:
    with pytest.raises(AssertionError, match="padding follows the text"):
        cropped(torch.zeros(2, 3, 4), torch.tensor([[1, 1, 1], row]))
