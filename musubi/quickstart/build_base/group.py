"""Train with a few processes on one machine: each has its own thread and data, gradients are averaged with gloo."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable
from typing import TypeAlias

import attrs
import torch
from torch import distributed, nn
from torch.multiprocessing.spawn import spawn

from musubi.quickstart.build_base.options import Options

LOG_FORMAT = "%(asctime)s %(message)s"


@attrs.frozen
class Group:
    """Know this process's rank and how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Return whether this process writes the files."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every process has come here."""
        if self.size > 1:
            distributed.barrier()

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace all gradients by their mean over the processes, in one message."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.size
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


Work: TypeAlias = Callable[[Options, Group], None]


def launch(work: Work, options: Options) -> None:
    """Run `work` in `options.processes` spawned processes and wait for all of them."""
    if options.processes == 1:
        work(options, Group())
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # for the children: setting it in torch alone leaves two threads in the way
    spawn(_join, args=(work, options, _free_port()), nprocs=options.processes)


def _join(rank: int, work: Work, options: Options, port: int) -> None:
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    address = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=options.processes)
    try:
        work(options, Group(rank, options.processes))
    finally:
        distributed.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
