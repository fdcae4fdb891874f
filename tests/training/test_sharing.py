"""One copy of frozen weights; that several processes really share it is in ``test_many_processes.py``."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn

from musubi.training.processes import Processes
from musubi.training.sharing import mapped, roomy, share_frozen, written


def tensors() -> list[Tensor]:
    """Return tensors of several types and layouts, one of them a view that is not contiguous."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(6, 5, generator=generator)
    return [numbers.clone(), numbers.T, numbers.bfloat16(), torch.tensor(3), numbers.to(torch.float8_e4m3fn)]


def test_what_is_written_and_mapped_again_is_the_same_bit_for_bit() -> None:
    before, after = tensors(), tensors()

    path = written(before)
    assert path is not None
    for tensor in after:
        tensor.data = torch.zeros_like(tensor)
    mapped(after, path)
    shutil.rmtree(path.parent)

    for one, other in zip(before, after, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert torch.equal(one.float(), other.float())


def test_a_place_is_taken_only_if_there_is_room(tmp_path: Path) -> None:
    assert roomy(1, [tmp_path / "nowhere", tmp_path]) == tmp_path
    assert roomy(1 << 62, [tmp_path]) is None


def test_a_single_process_keeps_its_weights_where_they_are() -> None:
    model = nn.Linear(3, 3).requires_grad_(requires_grad=False)
    place = model.weight.data_ptr()

    with ExitStack() as stack:
        share_frozen(model, Processes("cpu"), stack)

    assert model.weight.data_ptr() == place
