"""One copy of the frozen weights for all processes of a machine that keep them in host memory."""

from __future__ import annotations

import logging
import mmap
import platform
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn

from musubi.memory.packing import ALIGNMENT, aligned
from musubi.memory.streamable import SMALLEST
from musubi.training.processes import Processes

logger = logging.getLogger(__name__)

_MEMORY = Path("/dev/shm")
_PAGE = mmap.PAGESIZE
_MARGIN = 64 << 20
"""Bytes that are left free for others."""


def share_frozen(model: nn.Module, processes: Processes, stack: ExitStack) -> None:
    """Move a model's frozen host tensors into memory that the processes of this machine share; the values stay.

    All processes call it with the same loaded model. What lies on another device stays as it is. The file behind the
    memory goes away at once where the system allows that, else when ``stack`` is closed. Where there is no room for
    it, as in a container with little shared memory, each process keeps its own copy.
    """
    tensors = list(_frozen(model))
    if processes.count == 1 or not tensors:
        return
    everyone = processes.share(
        lambda: (platform.node(), str(written(tensors) or "") if processes.leads_machine else "")
    )
    places = [Path(place) for node, place in everyone if node == platform.node() and place]
    if places:
        mapped(tensors, places[0])
    processes.wait()
    if places and processes.leads_machine:
        shutil.rmtree(places[0].parent, ignore_errors=True)
        stack.callback(shutil.rmtree, places[0].parent, ignore_errors=True)


def roomy(size: int, places: Iterable[Path]) -> Path | None:
    """Return the first folder that has so many bytes left, or None.

    It must be asked before: writing into mapped memory that turns out not to be there kills the process.
    """
    return next((place for place in places if place.is_dir() and shutil.disk_usage(place).free >= size + _MARGIN), None)


def _frozen(model: nn.Module) -> Iterator[Tensor]:
    """Yield each frozen tensor of the host once, module by module: those of a block are neighbours.

    Block swap then copies a block to the device from where it lies, see ``musubi.memory.arena``.
    """
    seen: set[int] = set()
    for module in model.modules():
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if tensor.device.type == "cpu" and not tensor.requires_grad and id(tensor) not in seen and tensor.numel():
                seen.add(id(tensor))
                yield tensor


def written(tensors: list[Tensor]) -> Path | None:
    """Write the tensors one after the other into a new file and return its path; None if there is no room for it."""
    starts, size = _laid_out(tensors)
    place = roomy(size, (_MEMORY, Path(tempfile.gettempdir())))
    if place is None:
        logger.warning("no room to share %.1f GiB of weights: each process keeps its own copy", size / (1 << 30))
        return None
    path = Path(tempfile.mkdtemp(prefix="musubi-", dir=place)) / "weights"
    with path.open("wb") as file:
        file.truncate(size)
    whole = _bytes(path, size)
    for tensor, start in zip(tensors, starts, strict=True):
        whole[start : start + tensor.nbytes].copy_(_raw(tensor))
    return path


def mapped(tensors: list[Tensor], path: Path) -> None:
    """Let every tensor use its part of the file instead of memory of its own."""
    starts, size = _laid_out(tensors)
    whole = _bytes(path, size)
    for tensor, start in zip(tensors, starts, strict=True):
        part = whole[start : start + tensor.nbytes]
        tensor.data = part.view(tensor.dtype).view(tensor.shape)


def _bytes(path: Path, size: int) -> Tensor:
    return torch.from_file(str(path), shared=True, size=size, dtype=torch.uint8)


def _raw(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _laid_out(tensors: Iterable[Tensor]) -> tuple[list[int], int]:
    """Return where each tensor begins, and where the last one ends; whatever can stream begins a page.

    So each block can be pinned by itself, and equal blocks lie equally.
    """
    starts, end = [], 0
    for tensor in tensors:
        start = aligned(end, _PAGE if tensor.nbytes > SMALLEST else ALIGNMENT)
        starts.append(start)
        end = start + tensor.nbytes
    return starts, aligned(end, ALIGNMENT)
