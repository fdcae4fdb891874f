from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi.training.plots import loss_figure, smoothed


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=50))
def test_the_smoothed_curve_stays_within_what_it_smooths(values: list[float]) -> None:
    means = smoothed(values)

    assert len(means) == len(values)
    assert all(min(values) - 1e-6 <= mean <= max(values) + 1e-6 for mean in means)


def test_a_constant_stays_itself_from_the_first_value_on() -> None:
    assert smoothed([3.0] * 20) == pytest.approx([3.0] * 20)


def test_the_loss_figure_shows_every_step() -> None:
    figure = loss_figure([3.0, 2.0, 1.0], [0.1, 0.1, 0.05])

    raw, smooth = figure.axes[0].get_lines()
    assert np.asarray(raw.get_ydata()).tolist() == [3.0, 2.0, 1.0]
    assert len(np.asarray(smooth.get_ydata())) == 3
