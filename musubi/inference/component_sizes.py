"""What a component's weights take under the policies that act in it, from its file's headers alone."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from musubi.memory.on_host import ComputeOnHost, TablesOnHost
from musubi.memory.policy import MemoryPolicy
from musubi.memory.quantise import Quantise, quantises
from musubi.memory.sizes import BlockSize, Sizes
from musubi.weights.companions import Companions
from musubi.weights.naming import PREFIXES, strip

if TYPE_CHECKING:
    import torch

    from musubi.architecture import Component
    from musubi.keymap import KeyMap
    from musubi.weights.checkpoint import Checkpoint


@attrs.frozen(kw_only=True)
class _Weight:
    """A tensor of the file: its names, how many sides it has, and the bytes that it will take."""

    original: str
    library: str
    sides: int
    nbytes: int


def device_bytes(
    checkpoint: Checkpoint, component: Component, policies: Sequence[MemoryPolicy], *, dtype: torch.dtype
) -> int:
    """Return the bytes of a component's weights on the device, computing in ``dtype``.

    Args:
        checkpoint: The component's open file.
        component: What is known of it.
        policies: Those that act in it, in their order.
        dtype: What is neither quantised nor stays in the file's 8 bits is kept in.
    """
    if any(isinstance(policy, ComputeOnHost) for policy in policies):
        return 0
    weights = list(_weights(checkpoint, component, policies, dtype))
    tables = {f"{name}.weight" for policy in policies if isinstance(policy, TablesOnHost) for name in policy.tables}
    kept = [weight for weight in weights if weight.library not in tables]
    sizes = Sizes(
        blocks=tuple(_blocks(kept, component)),
        weights=sum(weight.nbytes for weight in kept),
        largest_matrix=max((weight.nbytes for weight in kept if weight.sides > 1), default=0),
        kept=0,
    )
    for policy in policies:
        sizes = policy.estimate(sizes)
    return sizes.weights


def _weights(
    checkpoint: Checkpoint, component: Component, policies: Sequence[MemoryPolicy], dtype: torch.dtype
) -> Iterator[_Weight]:
    import torch

    quantising = next((policy for policy in policies if isinstance(policy, Quantise)), None)
    beside = Companions.of(checkpoint.stated()).names
    for name in checkpoint.names():
        if name in beside:
            continue
        shape, stored = checkpoint.shape(name), checkpoint.dtype(name)
        original, library = _names(name, component.keys, component.layout.blocks)
        nbytes = math.prod(shape) * dtype.itemsize
        if quantises(original, component.layout) and len(shape) == 2:
            if stored.itemsize == 1:
                nbytes = math.prod(shape)
            elif quantising is not None and quantising.takes(shape):
                made = quantising.format.empty((shape[0], shape[1]), dtype=stored, device=torch.device("meta"))
                nbytes = sum(tensor.nbytes for tensor in made if tensor is not None)
        yield _Weight(original=original, library=library, sides=len(shape), nbytes=nbytes)


def _names(name: str, keys: KeyMap, blocks: Sequence[str]) -> tuple[str, str]:
    """Return the original and the library's name of a tensor in a file of either naming.

    Files of the library's naming may lack the segment under which the loaded module holds theirs; some have one before
    all names.
    """
    short = strip(name, PREFIXES)
    first = {path.partition(".")[0] for path in blocks}
    for known in (short, *(f"{segment}.{short}" for segment in first), short.partition(".")[2]):
        original, _ = keys.to_original(known)
        if original != known:
            return original, known
        (library, *_) = keys.to_library(known)
        if library.name != known:
            return known, library.name
    return short, short


def _blocks(weights: Sequence[_Weight], component: Component) -> Iterator[BlockSize]:
    """Yield the sizes of the blocks, in their order."""
    for path in component.layout.blocks:
        inside = re.compile(rf"{re.escape(path)}\.(\d+)\..*")
        found: dict[int, list[_Weight]] = {}
        for weight in weights:
            match = inside.fullmatch(weight.library)
            if match:
                found.setdefault(int(match[1]), []).append(weight)
        for number in sorted(found):
            block: Mapping[bool, int] = {
                matrices: sum(w.nbytes for w in found[number] if (w.sides > 1) == matrices)
                for matrices in (True, False)
            }
            yield BlockSize(matrices=block[True], rest=block[False], boundary=0, working=0)
