"""Which blocks the reference's host-to-device ring streams.

Its older exchange, which carries frozen weights back to the host, has no counterpart here: ours never copies back.
"""

from __future__ import annotations

import re

import pytest

from musubi.memory.schedule import spread
from tests.parity import cases

CASES = [
    (stem, name, known)
    for stem in cases.vector_stems("mem_swap_schedule")
    for name, known in cases.vector(stem)["head"].items()
]


@pytest.mark.parametrize(
    ("name", "expected"),
    [(name, known.get("h2d_stream_idx")) for _, name, known in CASES],
    ids=[f"{stem}-{name}" for stem, name, _ in CASES],
)
def test_mem_swap_schedule_streams_the_same_blocks(name: str, expected: list[int] | None) -> None:
    sizes = re.fullmatch(r"N(\d+)_S(\d+)", name)
    assert sizes is not None
    if expected is None:
        pytest.skip("a case of the exchange only, which copies frozen weights back")

    assert list(spread(int(sizes[2]), int(sizes[1]))) == expected
