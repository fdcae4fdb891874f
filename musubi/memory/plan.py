"""What a run will need, before any weight is loaded."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from musubi.core.notebook import card
from musubi.memory.policy import FitContext, MemoryPolicy, arrange, blocks_of, preparation
from musubi.memory.sizes import KEPT_PER_FEATURE, Sizes, measure

if TYPE_CHECKING:
    import torch
    from torch import nn

    from musubi.architecture import Geometry, Layout
    from musubi.keymap import KeyMap

GIB = 1 << 30


@attrs.frozen(kw_only=True)
class Cost:
    """Bytes that each trained parameter takes: on the device beside the model's own weights, and on disk.

    The usual ones are those of adapters in float32 with AdamW: the weight, its gradient and two moments; on disk the
    file, and a state with the weight and the moments.
    """

    device: int = 16
    disk: int = 16
    what: str = "adapters in float32 with AdamW"


@attrs.frozen(kw_only=True)
class Row:
    """One bucket's need of device memory, in bytes."""

    bucket: str
    tokens: int
    weights: int
    activations: int
    trained: int

    @property
    def total(self) -> int:
        """Everything together."""
        return self.weights + self.activations + self.trained


@attrs.frozen(kw_only=True)
class Plan:
    """Device memory for every bucket, host memory and disk, in bytes, and what was assumed.

    ``host`` is the peak of host memory (while loading), ``pinned`` what stays pinned while running, ``disk`` one file
    of what is trained and one state to resume from.
    """

    title: str
    rows: tuple[Row, ...]
    host: int
    pinned: int
    disk: int
    assumptions: tuple[str, ...]

    @property
    def peak(self) -> Row | None:
        """The bucket that needs most, None without buckets."""
        return max(self.rows, key=lambda row: row.total, default=None)

    def __str__(self) -> str:
        head = ("bucket", "tokens", "weights", "activations", "training", "total")
        table = [head, *(_cells(row) for row in self.rows)]
        lines = [self.title, "", *_aligned(table), ""]
        lines += [f"{name}: {value}" for name, value in self._elsewhere()]
        return "\n".join([*lines, "", "assumed:", *(f"  - {text}" for text in self.assumptions)])

    def _repr_html_(self) -> str:
        rows = [(row.bucket, f"{_size(row.total)} ({_parts(row)})") for row in self.rows]
        return card(self.title, [*rows, *self._elsewhere(), ("assumed", "; ".join(self.assumptions))])

    def _elsewhere(self) -> tuple[tuple[str, str], ...]:
        return (
            ("host RAM", f"{_size(self.host)} at most, while loading"),
            ("pinned RAM", f"{_size(self.pinned)} while running"),
            ("disk", f"{_size(self.disk)} for one file of what is trained and one state"),
        )


def plan(
    model: nn.Module,
    *,
    layout: Layout,
    keys: KeyMap,
    geometry: Geometry,
    buckets: Mapping[str, tuple[int, ...]],
    batch_size: int,
    trainable: int,
    policies: Sequence[MemoryPolicy],
    training: bool,
    dtype: torch.dtype,
    title: str = "model",
    cost: Cost | None = None,
) -> Plan:
    """Return what running ``model`` (on the meta device; left as it is) will need.

    ``buckets`` maps a bucket's name to its latent shape (..., frames, height, width); ``trainable`` counts parameters,
    each at a ``cost``.
    Weights are counted exactly on the model as the policies prepare it. Activations are estimated, with t tokens in
    the batch, W = ``KEPT_PER_FEATURE`` * t * bytes * (inputs + outputs of a block's Linears) and
    B = t * bytes * width: training takes W for every block that is not checkpointed, B for every one that is, and one
    W more for the block being computed again; without training it is one W.

    Raises:
        ConfigError: The policies do not fit the model or one another.
    """
    empty = copy.deepcopy(model)
    count = len(blocks_of(empty, layout))
    ordered = arrange(policies, FitContext(title=title, layout=layout, blocks=count, training=training))
    preparation(ordered, keys=keys, layout=layout)(empty)
    sizes = measure(empty, layout, dtype=dtype)
    for policy in ordered:
        sizes = policy.estimate(sizes)
    trained, cost = trainable if training else 0, cost or Cost()
    return Plan(
        title=f"{title}, {'training' if training else 'generation'}, {_dtype_name(dtype)}, batch size {batch_size}",
        rows=tuple(
            _row(name, geometry.tokens(shape) * batch_size, sizes, trained * cost.device, training=training)
            for name, shape in buckets.items()
        ),
        host=sizes.host,
        pinned=sizes.pinned,
        disk=trained * cost.disk,
        assumptions=tuple(_assumptions(sizes, trained, cost, training=training)),
    )


def _row(bucket: str, tokens: int, sizes: Sizes, trained: int, *, training: bool) -> Row:
    return Row(
        bucket=bucket,
        tokens=tokens,
        weights=sizes.weights,
        activations=sizes.activations(tokens, training=training),
        trained=trained,
    )


def _assumptions(sizes: Sizes, trained: int, cost: Cost, *, training: bool) -> Iterable[str]:
    yield "weights: counted on the empty model; activations: an estimate, not a measurement"
    yield f"a block keeps {KEPT_PER_FEATURE} bytes for each byte of its Linears' inputs and outputs"
    if training:
        yield f"{len(sizes.blocks)} blocks: {sizes.kept} keep everything, {sizes.checkpointed} only their input"
        yield f"{cost.what}: {cost.device} bytes for each of {trained:,} parameters"
    yield "text tokens, encoders, the decoder and the allocator's fragments are not included"


def _cells(row: Row) -> tuple[str, ...]:
    return (row.bucket, f"{row.tokens:,}", *map(_size, (row.weights, row.activations, row.trained, row.total)))


def _parts(row: Row) -> str:
    parts = {"weights": row.weights, "activations": row.activations, "training": row.trained}
    return ", ".join(f"{name} {_size(value)}" for name, value in parts.items())


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    ]


def _size(value: int) -> str:
    """Return bytes in the unit that shows three digits."""
    for unit, name in ((GIB, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= unit:
            return f"{value / unit:.3g} {name}" if value < 999.5 * unit else f"{value / unit:.0f} {name}"
    return f"{value} B"


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
