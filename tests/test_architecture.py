from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi import ConfigError, Geometry, WeightsRef
from musubi.testing.toy import Toy

VIDEO = Geometry()
sides = st.integers(1, 5000)


@given(width=sides, height=sides)
def test_a_size_is_refused_exactly_if_a_side_is_no_multiple_and_the_nearest_are_legal(width: int, height: int) -> None:
    issues = VIDEO.size_issues((width, height))

    assert bool(issues) == (width % 16 != 0 or height % 16 != 0)
    for up in (False, True):
        near = VIDEO.nearest((width, height), up=up)
        assert not VIDEO.size_issues(near)
        assert all(abs(a - b) < 16 or b == 16 for a, b in zip((width, height), near, strict=True))


@given(frames=st.integers(1, 500))
def test_clips_have_4k_plus_1_frames_and_the_hint_names_the_neighbours(frames: int) -> None:
    issues = VIDEO.frame_issues(frames)

    assert bool(issues) == (frames % 4 != 1)
    if issues:
        low, high = (int(word) for word in issues[0].hint.removeprefix("nearest are ").split(" and "))
        assert low < frames < high == low + 4
        assert not VIDEO.frame_issues(low)


def test_a_model_of_single_pictures_takes_one_frame_only() -> None:
    stills = Geometry(video=False)

    assert not stills.frame_issues(1)
    assert stills.frame_issues(5)


@given(columns=st.integers(1, 40), rows=st.integers(1, 40), steps=st.integers(0, 30))
def test_a_latent_has_an_eighth_of_the_sides_and_four_cells_make_a_token(columns: int, rows: int, steps: int) -> None:
    shape = VIDEO.latent_shape((16 * columns, 16 * rows), 4 * steps + 1)

    assert shape == (16, steps + 1, 2 * rows, 2 * columns)
    assert VIDEO.tokens(shape) == columns * rows * (steps + 1)


def test_weights_of_a_component_that_does_not_exist_are_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"weights\.dlt: no such component; did you mean 'dit'\?.*components: dit"):
        Toy().with_weights(dlt="file.safetensors")


def test_with_weights_keeps_what_was_given_before_and_the_rest_as_published() -> None:
    toy = Toy().with_weights(dit="mine.safetensors").with_weights(vae="owner/repo@main:vae.safetensors")

    assert toy.weight("dit") == WeightsRef("mine.safetensors")
    assert toy.weight("vae").repo == "owner/repo"
    assert toy.weight("text") == Toy().default_weights()["text"]
