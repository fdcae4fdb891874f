"""Schedules of every kind, drawn at random."""

from __future__ import annotations

from hypothesis import strategies as st

from musubi.optim.decays import CosineRestarts, InverseSqrt, Polynomial, Rex
from musubi.optim.schedules import Constant, Cosine, Linear, Schedule
from musubi.optim.stages import PiecewiseConstant, WarmupStableDecay

_steps_or_share = st.one_of(st.integers(0, 50), st.floats(0, 0.99))
_ratios = st.floats(0, 1)
_positive = st.floats(0.1, 4)
_shapes = st.sampled_from(["linear", "cosine", "1-sqrt"])


def _pieces(ends: list[int]) -> tuple[tuple[float, int], ...]:
    return tuple((1.0 / (1 + i), end) for i, end in enumerate(sorted(ends)))


KINDS_DRAWN: dict[type[Schedule], st.SearchStrategy[Schedule]] = {
    Constant: st.builds(Constant, warmup=_steps_or_share),
    Linear: st.builds(Linear, warmup=_steps_or_share, min_ratio=_ratios),
    Cosine: st.builds(Cosine, warmup=_steps_or_share, min_ratio=_ratios, halves=_positive),
    CosineRestarts: st.builds(CosineRestarts, warmup=_steps_or_share, min_ratio=_ratios, cycles=st.integers(1, 5)),
    Polynomial: st.builds(Polynomial, warmup=_steps_or_share, min_ratio=_ratios, power=_positive),
    InverseSqrt: st.builds(
        InverseSqrt, warmup=_steps_or_share, min_ratio=_ratios, timescale=st.none() | st.integers(1, 99)
    ),
    Rex: st.builds(Rex, warmup=_steps_or_share, min_ratio=_ratios, alpha=st.floats(0.1, 1), beta=st.floats(0.9, 1)),
    WarmupStableDecay: st.builds(
        WarmupStableDecay,
        warmup=_steps_or_share,
        decay=_steps_or_share,
        min_ratio=_ratios,
        shape=_shapes,
        warmup_shape=_shapes,
        halves=_positive,
    ),
    PiecewiseConstant: st.builds(
        PiecewiseConstant,
        pieces=st.lists(st.integers(1, 90), unique=True, max_size=4).map(_pieces),
        last=st.floats(0.01, 1),
    ),
}
schedules: st.SearchStrategy[Schedule] = st.one_of(*KINDS_DRAWN.values())
warming: st.SearchStrategy[Schedule] = st.one_of(*(drawn for k, drawn in KINDS_DRAWN.items() if k != PiecewiseConstant))
