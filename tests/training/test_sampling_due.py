from __future__ import annotations

import pytest

from musubi.training.sampling_due import sampling_due


@pytest.mark.parametrize("at_first", [True, False])
def test_before_the_first_step_only_the_first_counts(at_first: bool) -> None:
    assert sampling_due(0, at_first=at_first, every=1, every_epochs=1) is at_first


def test_steps_and_epochs_are_each_a_reason() -> None:
    assert sampling_due(20, every=10, every_epochs=None)
    assert not sampling_due(15, every=10, every_epochs=None)
    assert sampling_due(15, [2], every=10, every_epochs=2)
    assert sampling_due(15, range(3, 5), every=None, every_epochs=2)
    assert not sampling_due(15, [3], every=10, every_epochs=2)
    assert not sampling_due(15, [2], every=None, every_epochs=None)
