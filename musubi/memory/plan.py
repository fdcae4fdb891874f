"""What a run will need, before any weight is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.memory.budget import size
from musubi.memory.forecast import Bucket, Forecast, Subject
from musubi.memory.hardware import EFFICIENCY, GIB, Hardware
from musubi.memory.need import CONTEXT, SLACK, Row
from musubi.memory.policy import FitContext, MemoryPolicy, blocks_of
from musubi.memory.quantise import Quantise
from musubi.memory.resolve import budget_of, is_open, resolved, written

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from musubi.architecture import Geometry, Layout
    from musubi.keymap import KeyMap
    from musubi.memory.sizes import Sizes

__all__ = ["GIB", "Cost", "Disk", "Other", "Plan", "Row", "plan", "plan_of"]


@attrs.frozen(kw_only=True)
class Cost:
    """Bytes that each trained parameter takes: on the device beside the model's own weights, and in files.

    The usual ones are those of adapters in float32 with AdamW: the weight and two moments, and a gradient for a while;
    a file has the weight, and a state the weight and the moments.
    """

    device: int = 12
    gradient: int = 4
    file: int = 4
    state: int = 12
    what: str = "adapters in float32 with AdamW"


@attrs.frozen(kw_only=True)
class Disk:
    """Bytes on disk: one file of what is trained, one state, how many of each stay, and what else lies there."""

    file: int = 0
    files: int = 1
    state: int = 0
    states: int = 1
    cache: int = 0
    samples: int = 0

    @property
    def total(self) -> int:
        """Everything together, once the run is over."""
        return self.file * self.files + self.state * self.states + self.cache + self.samples


@attrs.frozen(kw_only=True)
class Other:
    """Another moment of a run.

    Args:
        name: What it is called.
        device: Its bytes on the device.
        what: What these are.
        way_out: What would make it smaller.
        chosen: Whether policies that are left open have to make room for it, too.
    """

    name: str
    device: int
    what: str
    way_out: str = ""
    chosen: bool = False


@attrs.frozen(kw_only=True)
class Plan:
    """Device memory for every bucket, host memory, disk and time, in bytes and seconds, and what was assumed.

    Args:
        title: What is planned.
        rows: The need of every bucket.
        host: The peak of host memory while the model is loaded.
        running: Host memory while running, pinned memory among it.
        pinned: The largest bucket's pinned memory.
        places: What lies on disk.
        assumptions: What the figures rest on.
        hardware: What was planned for, None if nothing is known of it.
        policies: The memory policies, with all decided that was left open.
        chosen: Whether some were left open.
        limit: The budget that a policy was given.
        timed: What the times are of: a step of training, or all steps of a generation.
        others: Other moments that need the device: encoding, sampling.
        advice: What to change for what does not fit.
    """

    title: str
    rows: tuple[Row, ...]
    host: int
    pinned: int
    places: Disk
    assumptions: tuple[str, ...]
    running: int = 0
    hardware: Hardware | None = None
    policies: tuple[MemoryPolicy, ...] = ()
    chosen: bool = False
    limit: int | None = None
    timed: str = "step"
    others: tuple[Other, ...] = ()
    advice: tuple[str, ...] = ()

    @property
    def peak(self) -> Row | None:
        """The bucket that needs most, None without buckets."""
        return max(self.rows, key=lambda row: row.total, default=None)

    @property
    def disk(self) -> int:
        """Bytes on disk of one file and one state."""
        return self.places.file + self.places.state

    @property
    def budget(self) -> int | None:
        """Bytes that may be used: those of the device, or a policy's budget if less; None if neither is known."""
        known = (None if self.hardware is None else self.hardware.memory, self.limit)
        return min((limit for limit in known if limit is not None), default=None)

    @property
    def fits(self) -> bool:
        """Whether everything that is planned fits the budget; True where there is none."""
        needs = (*(row.total for row in self.rows), *(other.device for other in self.others))
        return self.budget is None or all(need <= self.budget for need in needs)

    @property
    def line(self) -> str:
        """The memory policies as a line to paste: ``.with_memory(...)``."""
        return written(self.policies)

    def __str__(self) -> str:
        from musubi.memory.report import text

        return text(self)

    def _repr_html_(self) -> str:
        from musubi.memory.report import html

        return html(self)

    def plot(self) -> Figure:
        """Draw what every bucket needs, by part, against the device's memory.

        Raises:
            ConfigError: matplotlib is not installed.
        """
        from musubi.memory.report import figure

        return figure(self)


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
    predict: Mapping[str, Callable[[nn.Module], Tensor]] | None = None,
    attach: Callable[[nn.Module], AbstractContextManager[Iterable[nn.Parameter]]] | None = None,
    float32: Sequence[str] = (),
    hardware: Hardware | str | None = None,
    accelerated: bool = True,
) -> Plan:
    """Return what running ``model`` (on the meta device; left as it is) will need.

    ``buckets`` maps a bucket's name to its latent shape (..., frames, height, width); ``trainable`` counts parameters,
    each at a ``cost``. See ``Bucket`` and ``Subject`` for ``predict`` (by bucket), ``attach``, ``float32`` and
    ``accelerated``.

    Raises:
        ConfigError: The policies do not fit the model or one another, or nothing fits a budget.
    """
    trained, cost = trainable if training else 0, cost or Cost()
    known = predict or {}
    subject = Subject(
        model=model,
        keys=keys,
        context=FitContext(title=title, layout=layout, blocks=len(blocks_of(model, layout)), training=training),
        dtype=dtype,
        buckets=tuple(
            Bucket(name=name, tokens=geometry.tokens(shape) * batch_size, predict=known.get(name))
            for name, shape in buckets.items()
        ),
        float32=tuple(float32),
        attach=attach,
        trained=trained * cost.device,
        gradients=trained * cost.gradient,
        accelerated=accelerated,
    )
    use = "training" if training else "generation"
    return plan_of(
        subject,
        policies,
        title=f"{title}, {use}, {_dtype_name(dtype)}, batch size {batch_size}",
        hardware=Hardware.named(hardware) if isinstance(hardware, str) else hardware,
        places=Disk(file=trained * cost.file, state=trained * cost.state),
        told=(told_cost(cost, trained),) if trained else (),
    )


def told_cost(cost: Cost, trained: int) -> str:
    """Say what is counted for each trained parameter."""
    gradient = f", and {cost.gradient} of its gradient" if cost.gradient else ""
    return f"{cost.what}: {cost.device} bytes for each of {trained:,} parameters{gradient}"


def plan_of(
    subject: Subject,
    policies: Sequence[MemoryPolicy],
    *,
    title: str,
    hardware: Hardware | None = None,
    places: Disk | None = None,
    others: Callable[[Sequence[MemoryPolicy]], Sequence[Other]] = lambda _: (),
    told: Sequence[str] = (),
    base: int = 0,
) -> Plan:
    """Return the plan of a subject.

    Args:
        subject: The model and its use.
        policies: As the user wrote them.
        title: The plan's first line.
        hardware: What to plan for.
        places: What lies on disk.
        others: Tells of other moments with decided policies.
        told: Further assumptions.
        base: Bytes of host memory that the program itself takes.

    Raises:
        ConfigError: As ``plan`` does.
    """
    _check_units(policies, hardware)
    forecast = Forecast(subject)
    memory = None if hardware is None else hardware.memory

    def peak(tried: Sequence[MemoryPolicy]) -> int:
        return max(forecast.peak(tried), *(other.device for other in others(tried) if other.chosen), 0)

    decided = resolved(policies, subject.context, peak, memory=memory)
    rows, sizes = forecast.rows(decided, hardware), forecast.sizes(decided)
    pinned = max((row.pinned for row in rows), default=sizes.pinned)
    context = attrs.evolve(subject.context, policies=tuple(policies))
    limit = budget_of(policies, context)
    found = tuple(others(decided))
    budget = min((known for known in (memory, limit) if known is not None), default=None)
    return Plan(
        title=title,
        rows=rows,
        host=max(sizes.host, pinned) + base,
        running=pinned + base,
        pinned=pinned,
        places=places or Disk(),
        assumptions=(*_assumptions(subject, sizes, hardware, estimated=forecast.estimated), *told),
        hardware=hardware,
        policies=decided,
        chosen=any(is_open(policy, context) for policy in policies),
        limit=limit,
        timed="step" if context.training else "all steps",
        others=found,
        advice=(*_advice(forecast, decided, rows, budget), *_advice_for(found, budget)),
    )


def _advice(
    forecast: Forecast, policies: Sequence[MemoryPolicy], rows: Sequence[Row], memory: int | None
) -> Iterable[str]:
    """Yield which buckets do not fit, and policies with which all would, or what else would help."""
    from musubi.memory.fit import Memory

    large = [] if memory is None else [row for row in rows if row.total > memory]
    if not large or memory is None:
        return
    names = ", ".join(row.bucket for row in large)
    yield f"{names}: {'does' if len(large) == 1 else 'do'} not fit {size(memory)}"
    context, kept = forecast.subject.context, [policy for policy in policies if policy.kind not in _REPLACED]
    found: dict[str, tuple[MemoryPolicy, ...]] = {}
    for start in (tuple(policies), tuple(kept)):
        try:
            ladder = resolved((*start, Memory()), context, forecast.peak, memory=memory)
        except ConfigError:
            continue
        found.setdefault("line", ladder)
    if found:
        yield f"fits with {written(found['line'])}"
        return
    yield "no memory policies make it fit: take a smaller batch, a smaller resolution or fewer frames"


def _check_units(policies: Sequence[MemoryPolicy], hardware: Hardware | None) -> None:
    """Refuse products in 8 bits that a card cannot compute."""
    issues = [
        Issue(f"memory[{index}].compute", f"{hardware.name} has no units for {policy.eight_bit} products", _UNITS_HINT)
        for index, policy in enumerate(policies)
        if hardware is not None and isinstance(policy, Quantise) and not hardware.multiplies(policy.eight_bit)
    ]
    if issues:
        raise ConfigError("memory policies do not fit the hardware", issues)


_UNITS_HINT = 'leave it out: compute="weights" runs everywhere'


def _advice_for(others: Sequence[Other], budget: int | None) -> Iterable[str]:
    for other in others:
        if budget is not None and other.device > budget:
            yield f"{other.name}: does not fit {size(budget)}{f'; {other.way_out}' if other.way_out else ''}"


_REPLACED = frozenset(("block_swap", "gradient_checkpointing"))
"""What advice may choose anew: policies that change no weights."""


def _assumptions(subject: Subject, sizes: Sizes, hardware: Hardware | None, *, estimated: bool) -> Iterable[str]:
    if estimated:
        yield "weights: counted on the empty model; activations: estimated from the sizes of its Linears"
    else:
        yield "weights: counted on the empty model; activations: followed through a pass on fake tensors"
    if subject.context.training:
        yield f"{len(sizes.blocks)} blocks: {sizes.kept} keep everything, {sizes.checkpointed} are computed again"
    slack = f"{SLACK:.0%} of all that comes and goes"
    more = f", {CONTEXT >> 20} MiB for CUDA itself" if subject.accelerated else ""
    yield f"slack: {slack} for the allocator{more}"
    if hardware is not None and hardware.tflops is not None:
        bandwidth = hardware.bandwidth / 1e9
        yield (
            f"time: {EFFICIENCY:.0%} of {hardware.tflops:g} TFLOP/s, {bandwidth:g} GB/s from pinned memory, "
            "loading of data and the optimiser's own step left out"
        )


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
