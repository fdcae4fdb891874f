from __future__ import annotations

import io
import re

import pytest

from musubi.core.errors import ConfigError
from musubi.noise.histogram import timestep_figure, timestep_text
from musubi.noise.timesteps import LogitNormal, Mode, ResolutionShift, Shift, Uniform
from musubi.noise.weighting import CosMap, NoWeighting, SigmaSqrt

TOKENS = {"512x512": 1024, "832x480": 1560, "480x832": 1560, "1328x1328": 6889}


def legend(figure: object) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]  # type: ignore[attr-defined]


def rows(text: str) -> list[tuple[float, list[float], float]]:
    """Return from each line below the heading where it begins, its shares in percent and its weight."""
    lines = text.splitlines()[2:]
    return [
        (float(line[:5]), [float(n) for n in re.findall(r"([\d.]+)%", line)], float(line.split()[-1])) for line in lines
    ]


def test_buckets_with_different_noise_are_curves_of_their_own_and_equal_ones_share_one() -> None:
    figure = timestep_figure(ResolutionShift(), CosMap(), tokens=TOKENS)

    assert legend(figure) == [
        "512x512, 1,024 tokens: median 0.652",
        "832x480 and 1 more, 1,560 tokens: median 0.673",
        "1328x1328, 6,889 tokens: median 0.835",
    ]


def test_noise_that_does_not_depend_on_tokens_is_one_curve() -> None:
    assert legend(timestep_figure(Shift(shift=3.0), NoWeighting(), tokens=TOKENS)) == ["all 4 buckets: median 0.750"]
    assert legend(timestep_figure(Mode(), NoWeighting(), tokens={"64x64": 16})) == ["64x64: median 0.500"]


def test_of_many_buckets_some_from_the_smallest_to_the_largest_are_shown() -> None:
    figure = timestep_figure(ResolutionShift(), CosMap(), tokens={str(n): 100 * n for n in range(1, 41)})

    shown = [int(label.split(",")[0]) for label in legend(figure)]
    assert len(shown) == 6
    assert (shown[0], shown[-1]) == (1, 40)
    assert shown == sorted(shown)


def test_steep_weights_are_drawn_on_a_logarithmic_scale() -> None:
    steep, flat = (timestep_figure(Uniform(), weighting, tokens=TOKENS) for weighting in (SigmaSqrt(), CosMap()))

    assert steep.axes[1].get_yscale() == "log"
    assert flat.axes[1].get_yscale() == "linear"


def test_a_figure_can_be_saved_and_names_the_sampler_by_what_was_set() -> None:
    figure = timestep_figure(LogitNormal(mean=0.5, low=0.1), CosMap(), tokens=TOKENS)

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=30)
    assert buffer.getvalue()[:4] == b"\x89PNG"
    assert figure.get_suptitle() == "LogitNormal(low=0.1, mean=0.5)"


def test_the_density_is_the_draws_and_fills_an_area_of_1() -> None:
    figure = timestep_figure(Uniform(low=0.2, high=0.6), NoWeighting(), tokens={"a": 16}, bins=10)

    heights = figure.axes[0].patches[0].get_data().values  # type: ignore[attr-defined]
    assert heights.tolist() == pytest.approx([0, 0, 2.5, 2.5, 2.5, 2.5, 0, 0, 0, 0])


def test_text_gives_every_ranges_share_and_weight() -> None:
    text = timestep_text(ResolutionShift(), SigmaSqrt(), tokens=TOKENS, lines=10)

    table = rows(text)
    assert [begin for begin, _, _ in table] == pytest.approx([i / 10 for i in range(10)])
    assert [len(shares) for _, shares, _ in table] == [3] * 10
    for column in range(3):
        assert sum(shares[column] for _, shares, _ in table) == pytest.approx(100, abs=0.5)
    assert table[0][2] == pytest.approx(400)


def test_bars_are_as_long_as_the_shares_and_lines_keep_the_width() -> None:
    text = timestep_text(Uniform(low=0.5), CosMap(), tokens=TOKENS, lines=4, width=80)

    heading, *lines = text.splitlines()[1:]
    bars = [line.count("#") for line in lines]
    assert bars[:2] == [0, 0]
    assert bars[2] == bars[3] > 40
    assert max(map(len, [heading, *lines])) <= 80
    assert text.isascii()


def test_what_cannot_be_shown_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="tokens: must name one bucket at least"):
        timestep_text(Uniform(), CosMap(), tokens={})
    with pytest.raises(ConfigError) as caught:
        timestep_figure(Uniform(), CosMap(), tokens={"a": 0}, bins=0)
    assert [issue.path for issue in caught.value.issues] == ["bins", "tokens['a']"]


def test_limits_that_leave_nothing_are_named() -> None:
    nothing = LogitNormal(mean=-20, std=0.1, low=0.9, preserve_shape=True)

    with pytest.raises(ConfigError, match="no draw falls between"):
        timestep_text(nothing, CosMap(), tokens=TOKENS)
