"""One copy of frozen weights; that several processes really share it is in ``test_many_processes.py``."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from musubi.memory.arena import Arena
from musubi.memory.streamable import state_of, streamable
from musubi.training.processes import Processes
from musubi.training.sharing import mapped, roomy, share_frozen, written
from tests.memory.locks import Locks
from tests.training.test_many_processes import told_by


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


def test_swapped_blocks_are_pinned_where_the_processes_share_them() -> None:
    model = wide_blocks()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors = list(state_of(model.modules()))
    path = written(tensors)
    assert path is not None
    mapped(tensors, path)
    shutil.rmtree(path.parent)

    arena, locks = Arena([list(streamable(block)) for block in model]), Locks()
    pinned = Arena([list(streamable(block)) for block in model], registrar=locks)

    assert arena.adopted == pinned.adopted == len(model)
    assert len({master.packing for master in arena.masters}) == 1
    assert 0 < pinned.pinned_bytes <= 1.02 * pinned.nbytes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


SWAPPED = """
import json, sys
from contextlib import ExitStack
from pathlib import Path
import torch
from musubi.memory.ring import streaming
from musubi.training.processes import Processes
from musubi.training.sharing import share_frozen
from tests.training.test_sharing import wide_blocks

def proportional():
    line = next(l for l in Path("/proc/self/smaps_rollup").read_text().splitlines() if l.startswith("Pss:"))
    return int(line.split()[1]) * 1024

processes = Processes("cpu")
value = torch.ones(1, 512)
warm = wide_blocks(2)  # kept: to free it would teach malloc to keep what is freed later
warm(value)
processes.wait()
bare = proportional()
model = wide_blocks(40)
with ExitStack() as stack, torch.no_grad():
    expected = model(value)
    share_frozen(model, processes, stack)
    stack.enter_context(streaming(model, list(model)[::2], device=torch.device("cpu")))
    equal = torch.equal(model(value), expected) and torch.equal(model(value), expected)
    processes.wait()
    told = {"more": proportional() - bare, "equal": equal}
    processes.wait()
Path(sys.argv[1], f"{processes.rank}.json").write_text(json.dumps(told))
"""


def test_two_processes_that_swap_need_little_more_than_one(tmp_path: Path) -> None:
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("this system does not tell how much memory is shared")

    (alone,) = told_by(SWAPPED, tmp_path, processes=1)
    both = told_by(SWAPPED, tmp_path, processes=2)

    assert all(one["equal"] for one in (alone, *both))
    assert sum(one["more"] for one in both) < 1.3 * alone["more"]


def wide_blocks(count: int = 6) -> nn.Sequential:
    """Return frozen blocks of two matrices each, with small weights and a large buffer among them."""
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(512, 1024), nn.LayerNorm(1024), nn.Linear(1024, 512)) for _ in range(count)]
    for block in blocks:
        block[0].register_buffer("scale", torch.randn(1024, 64))
    return nn.Sequential(*blocks).requires_grad_(requires_grad=False)
