from __future__ import annotations

import pytest
import torch

from musubi.weights.room import give_back, owned, raw, room

SHAPES = [(), (3, 5), (0, 4), (1 << 10, 1 << 11), (1 << 20, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.int64], ids=str)
def test_room_is_a_tensor_alone_in_its_memory(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = room(shape, dtype)

    assert tensor.shape == shape
    assert tensor.dtype == dtype
    assert tensor.is_contiguous()
    assert tensor.untyped_storage().nbytes() == tensor.nbytes
    assert tensor.data_ptr() % 64 == 0


def test_two_rooms_do_not_overlap() -> None:
    first, second = room((3, 1 << 20), torch.uint8), room((3, 1 << 20), torch.uint8)
    first.fill_(1)
    second.fill_(2)

    assert first.unique().tolist() == [1]


def test_memory_goes_with_its_tensor() -> None:
    view = room((1 << 22,), torch.uint8).fill_(7)[5:9]

    assert view.tolist() == [7, 7, 7, 7]


def test_bytes_are_written_in_place() -> None:
    tensor = torch.zeros(2, dtype=torch.int16)

    raw(tensor)[:] = bytes([1, 0, 2, 0])

    assert tensor.tolist() == [1, 2]


@pytest.mark.parametrize(
    "tensor",
    [torch.arange(8)[2:4], torch.arange(6).view(2, 3).T, torch.ones(1).expand(4)],
    ids=["a part", "a turned one", "a repeated one"],
)
def test_what_shares_its_memory_is_copied(tensor: torch.Tensor) -> None:
    copy = owned(tensor)

    assert torch.equal(copy, tensor)
    assert copy.untyped_storage().nbytes() == copy.nbytes
    assert copy.data_ptr() != tensor.data_ptr()


def test_what_is_alone_already_stays_where_it_is() -> None:
    tensor = torch.ones(4)

    assert owned(tensor).data_ptr() == tensor.data_ptr()


def test_memory_is_given_back_or_nothing_is_done() -> None:
    kept = [torch.ones(1 << 18) for _ in range(8)][::2]

    give_back()

    assert all(tensor.sum() == 1 << 18 for tensor in kept)
