"""Tiny models of all families with adapters, and the ways in which their weights and activations may live."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache

import attrs
import torch
from torch import Tensor, nn

from musubi import NF4, Attention, Compile, FP8Cast, FP8Scaled, GradientCheckpointing, Int8Scaled, LoRA
from musubi.memory.offloading import offloading
from musubi.memory.policy import MemoryPolicy, Placement, blocks_of, placed
from musubi.memory.ring import Copier, HostCopier, streaming
from musubi.memory.schedule import spread
from musubi.networks.adapters import AdapterSet
from tests.contract.covering import Row
from tests.contract.tiny_transformers import FAMILIES, Family
from tests.memory.copiers import LateCopier
from tests.memory.queued_copier import QueuedCopier

CPU = torch.device("cpu")
BLOCKS = 5
Policies = tuple[MemoryPolicy, ...]

STREAMED = {"none": 0, "one": 1, "half": BLOCKS // 2, "all but one": BLOCKS - 1, "all": BLOCKS}
COPIERS: Mapping[str, Callable[[], Copier]] = {"at once": HostCopier, "late": LateCopier, "queued": QueuedCopier}
QUANTISED: Mapping[str, Policies] = {
    "plain": (),
    "fp8": (FP8Scaled(),),
    "int8": (Int8Scaled(),),
    "cast": (FP8Cast(),),
    "nf4": (NF4(),),
}
ATTENTION: Mapping[str, Policies] = {"usual": (), "math": (Attention(backend="sdpa_math"),)}
COMPILED: Mapping[str, Policies] = {
    "as written": (),
    "eager": (Compile(backend="eager", dynamic=False),),
    "aot_eager": (Compile(backend="aot_eager", dynamic=False),),
}
CHECKPOINTED: Mapping[str, Policies] = {
    "keep": (),
    "all": (GradientCheckpointing(),),
    "every second": (GradientCheckpointing(every=2),),
    "all but attention": (GradientCheckpointing(keep=("attention",)),),
}
ACTIVATIONS = ("on device", "offloaded")
PRECISIONS = ("float32", "bfloat16")


@attrs.frozen(kw_only=True, eq=False)
class Case:
    """A family's model as its file gives it, with adapters that are not attached."""

    family: Family
    model: nn.Module
    trained: AdapterSet
    dtype: torch.dtype

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        return blocks_of(self.model, self.family.spec.layout)


@cache
def case(name: str, quantised: str, precision: str) -> Case:
    """Return the model with adapters that do something; the same each time, as each use leaves it as it was."""
    family, dtype, generator = FAMILIES[name], getattr(torch, precision), torch.Generator().manual_seed(1)
    model, spec = family.load(QUANTISED[quantised], dtype=dtype), family.spec
    trained = AdapterSet.create(LoRA(rank=2), model, keys=spec.keys, layout=spec.layout, generator=generator)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.normal_(std=0.1, generator=generator)
    return Case(family=family, model=model, trained=trained, dtype=dtype)


@contextmanager
def resident(made: Case, row: Row) -> Generator[None]:
    """Place only what changes the numbers themselves: the kernels of a combination."""
    policies = (*ATTENTION[row["attention"]], *COMPILED[row["compiled"]])
    with made.trained.attached(made.model), placed(made.model, policies, _placement(made)):
        yield


@contextmanager
def in_place(made: Case, row: Row) -> Generator[None]:
    """Place all of a combination, in the order of the phases."""
    policies = (*ATTENTION[row["attention"]], *COMPILED[row["compiled"]], *CHECKPOINTED[row["checkpointed"]])
    streamed = [made.blocks[index] for index in spread(STREAMED[row["streamed"]], BLOCKS)]
    with ExitStack() as stack:
        stack.enter_context(made.trained.attached(made.model))
        stack.enter_context(placed(made.model, policies, _placement(made)))
        if row["activations"] == "offloaded":
            blocks, copier = made.blocks[: BLOCKS - 1], QueuedCopier(seed=1, longest_s=1e-4)
            stack.enter_context(offloading(blocks, device=CPU, min_bytes=1, depth=2, copier=copier))
        if streamed:
            copying = COPIERS[row["copier"]]()
            stack.enter_context(streaming(made.model, streamed, device=CPU, slots=row["slots"], copier=copying))
        yield


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Return the bytes of all parameters and buffers."""
    return {name: _bits(tensor).clone() for name, tensor in model.state_dict().items()}


def unchanged(model: nn.Module, before: Mapping[str, Tensor]) -> bool:
    """Tell whether all parameters and buffers are those of a snapshot, bit for bit."""
    return all(torch.equal(before[name], _bits(tensor)) for name, tensor in model.state_dict().items())


def titles(rows: Iterable[Row]) -> list[str]:
    """Return what the combinations are called."""
    return [", ".join(map(str, row.values())) for row in rows]


def _placement(made: Case) -> Placement:
    return Placement(title=made.family.arch, layout=made.family.spec.layout, device=CPU, dtype=made.dtype)


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
