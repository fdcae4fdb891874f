from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from musubi.memory.packing import ALIGNMENT, Packed, Packing, aligned

DTYPES = (torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.int8, torch.complex64)
tensors = st.lists(
    st.builds(
        lambda shape, dtype: torch.ones(shape).to(dtype),
        st.lists(st.integers(1, 9), min_size=0, max_size=3),
        st.sampled_from(DTYPES),
    ),
    min_size=1,
    max_size=5,
)


@given(tensors=tensors)
def test_tensors_lie_aligned_one_after_the_other(tensors: list[torch.Tensor]) -> None:
    packing = Packing.of(tensors)
    packed = Packed.of(torch.zeros(packing.size, dtype=torch.uint8), packing)

    for view, tensor, place in zip(packed.views, tensors, packing.places, strict=True):
        view.copy_(tensor)
        assert place.start % ALIGNMENT == 0
    assert all(torch.equal(view, tensor) for view, tensor in zip(packed.views, tensors, strict=True))
    assert packing.nbytes <= packing.size < packing.nbytes + ALIGNMENT * len(tensors)


def test_equal_layouts_are_equal_keys() -> None:
    one, other = [torch.ones(3, 4), torch.ones(2)], [torch.zeros(3, 4), torch.zeros(2)]

    assert Packing.of(one) == Packing.of(other)
    assert len({Packing.of(one), Packing.of(other), Packing.at(other, [0, 512], 1024)}) == 2


@given(size=st.integers(0, 10_000), alignment=st.integers(1, 5000))
def test_sizes_are_rounded_up(size: int, alignment: int) -> None:
    found = aligned(size, alignment)

    assert found % alignment == 0
    assert size <= found < size + alignment
