from __future__ import annotations

import pytest

from musubi import Hardware
from musubi.memory.need import Balance, row_of
from musubi.memory.sizes import BlockSize, Sizes
from musubi.memory.timeline import Need

BLOCK = BlockSize(matrices=100, rest=1, boundary=1, working=10)
NEED = Need(conditions=10, kept=20, working=30, gradients=0, forward=(6 * 10**12, 0), backward=(12 * 10**12, 0))


def sizes(*, streamed: int = 0) -> Sizes:
    return Sizes(blocks=(BLOCK,), weights=1000, largest_matrix=10, kept=1, streamed=streamed, pinned=streamed)


def test_the_worst_moment_is_the_pass_or_the_update() -> None:
    def moment(gradients: int) -> tuple[int, int]:
        row = row_of(
            "b", tokens=1, sizes=sizes(), need=NEED, trained=5, gradients=gradients, accelerated=False, hardware=None
        )
        return row.kept, row.allocated

    assert moment(59) == (20, 1065)
    assert moment(61) == (0, 1066)


def test_the_parts_make_up_the_total() -> None:
    row = row_of("b", tokens=1, sizes=sizes(), need=NEED, trained=5, accelerated=True, hardware=None)

    assert sum(bytes for _, bytes in row.parts) == row.total == row.allocated + row.slack
    assert row.activations == 60


@pytest.mark.parametrize(
    ("copying", "seconds", "free"), [(0.0, 3.0, 1.0), (1.0, 3.0, 1.0), (1.5, 3.5, 2 / 3), (4.0, 8.0, 0.25)]
)
def test_a_step_takes_the_longer_of_computing_and_copying_in_each_pass(
    copying: float, seconds: float, free: float
) -> None:
    balance = Balance(forward=1.0, backward=2.0, copying=copying)

    assert balance.seconds == seconds
    assert balance.slowdown == pytest.approx(seconds / 3 - 1)
    assert balance.free == pytest.approx(free)


def test_times_are_those_of_the_hardware_at_a_realistic_share_of_its_peak() -> None:
    card = Hardware(name="a card", memory=1, tflops=10.0, bandwidth=1e9)

    row = row_of(
        "b", tokens=1, sizes=sizes(streamed=10**9), need=NEED, trained=0, accelerated=True, hardware=card, passes=2
    )

    assert row.balance is not None
    assert (row.balance.forward, row.balance.backward, row.balance.copying) == (1.0, 2.0, 1.0)
    assert row.balance.seconds == 6.0
    assert row.flops == 2 * 18 * 10**12


def test_without_a_known_speed_no_times_are_told() -> None:
    card = Hardware(name="a new card", memory=1)

    assert row_of("b", tokens=1, sizes=sizes(), need=NEED, trained=0, accelerated=True, hardware=card).balance is None
