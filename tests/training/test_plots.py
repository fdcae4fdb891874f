from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi.core.events import Band, Validated
from musubi.training.plots import loss_figure, smoothed


def measured(step: int, *bands: float) -> Validated:
    width = 1 / len(bands)
    return Validated(
        step=step,
        loss=sum(bands) / len(bands),
        bands=tuple(Band(low=i * width, high=(i + 1) * width, loss=loss) for i, loss in enumerate(bands)),
        best=False,
    )


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=50))
def test_the_smoothed_curve_stays_within_what_it_smooths(values: list[float]) -> None:
    means = smoothed(values)

    assert len(means) == len(values)
    assert all(min(values) - 1e-6 <= mean <= max(values) + 1e-6 for mean in means)


def test_a_constant_stays_itself_from_the_first_value_on() -> None:
    assert smoothed([3.0] * 20) == pytest.approx([3.0] * 20)


def test_a_loss_that_is_not_finite_leaves_the_smoothed_curve_as_it_was() -> None:
    assert smoothed([math.nan, 2.0, math.inf])[1:] == [2.0, 2.0]


def test_the_loss_figure_shows_every_step() -> None:
    figure = loss_figure([3.0, 2.0, 1.0], [0.1, 0.1, 0.05])

    raw, smooth = figure.axes[0].get_lines()
    assert np.asarray(raw.get_ydata()).tolist() == [3.0, 2.0, 1.0]
    assert len(np.asarray(smooth.get_ydata())) == 3


def test_every_parameter_group_has_a_curve_of_its_own() -> None:
    figure = loss_figure([3.0, 2.0], {"unet": [0.1, 0.1], "unet plus": [0.4, 0.4]})

    lines = {str(line.get_label()): np.asarray(line.get_ydata()).tolist() for line in figure.axes[-1].get_lines()}
    assert lines == {"unet": [0.1, 0.1], "unet plus": [0.4, 0.4]}


def test_the_best_measurement_is_marked_and_bands_have_a_picture_of_their_own() -> None:
    figure = loss_figure(
        [1.0] * 30, [0.1] * 30, [measured(10, 0.3, 0.5), measured(20, 0.1, 0.3), measured(30, 0.1, 0.4)]
    )

    losses, bands, _ = figure.axes
    best = losses.get_lines()[-1]
    assert best.get_label() == "best, step 20: 0.2000"
    assert [np.asarray(line.get_ydata()).tolist() for line in bands.get_lines()] == [[0.3, 0.1, 0.1], [0.5, 0.3, 0.4]]


def test_one_band_needs_no_picture() -> None:
    assert len(loss_figure([1.0], [0.1], [measured(1, 0.5)]).axes) == 2
