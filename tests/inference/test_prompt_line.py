from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi.core.errors import ConfigError
from musubi.inference.prompt_line import PromptLine, option_of
from musubi.inference.request import Request
from musubi.inference.single_frame import SingleFrame
from musubi.noise.embedded import Embedded

EVERYTHING = (
    "a fox --w 832 --h 480 --f 81 --d 7 --s 20 --g 6 --fs 14.5 --l 5.0 --n grey, blurred"
    " --i a.png --ei b.png --cn c.mp4 --ci d e.png --ci f.png --of target_index=1,control_index=0;2"
)
words = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)
sides = st.integers(1, 4096)
numbers = st.floats(0.0625, 64).map(lambda number: round(number, 3))


def issues(text: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        PromptLine.parse(text)
    return {issue.path: issue.message for issue in caught.value.issues}


def test_every_option_of_the_syntax_is_read() -> None:
    assert PromptLine.parse(EVERYTHING) == PromptLine(
        "a fox",
        width=832,
        height=480,
        frame_count=81,
        seed=7,
        sample_steps=20,
        guidance_scale=6.0,
        discrete_flow_shift=14.5,
        cfg_scale=5.0,
        negative_prompt="grey, blurred",
        image_path="a.png",
        end_image_path="b.png",
        control_video_path="c.mp4",
        control_image_path=("d e.png", "f.png"),
        one_frame="target_index=1,control_index=0;2",
    )


@given(prompt=words, size=st.tuples(sides, sides), seed=st.integers(0, 2**63), shift=numbers, negative=words)
def test_what_is_written_is_what_is_read(
    prompt: str, size: tuple[int, int], seed: int, shift: float, negative: str
) -> None:
    text = f"{prompt} --w {size[0]} --h {size[1]} --D {seed} --fs {shift} --n {negative}"

    request = PromptLine.parse(text).request()

    assert request == Request(prompt, size=size, seed=seed, shift=shift, negative=negative)


def test_what_a_line_does_not_say_is_left_open() -> None:
    assert PromptLine.parse("  a fox ").request() == Request("a fox")


def test_the_prompt_itself_is_never_taken_for_an_option() -> None:
    assert PromptLine.parse("d 77 cats, w 10--not an option").request() == Request("d 77 cats, w 10--not an option")


def test_an_empty_negative_prompt_can_be_asked_for() -> None:
    assert PromptLine.parse("a fox --n").request().negative == ""
    assert PromptLine.parse("a fox").request().negative is None


def test_everything_that_is_malformed_is_told_under_its_name() -> None:
    found = issues("a --s 2.5 --g 1.2.3 --f 25 frames --d -5 --fs abc --l --i --d 1 --d 2 --heigth 3")

    assert found == {
        "--s": "must be a whole number, got '2.5'",
        "--g": "must be a number, got '1.2.3'",
        "--f": "must be a whole number, got '25 frames'",
        "--d": "is given twice",
        "--fs": "must be a number, got 'abc'",
        "--l": "must be a number, got ''",
        "--i": "must be a path, got ''",
        "--heigth": "is no option",
    }


def test_the_nearest_option_is_named() -> None:
    assert issues("a --cfs 3") == {"--cfs": "is no option; did you mean 'fs'?"}


def test_values_out_of_range_are_told_under_the_options_name() -> None:
    assert issues("a --s 0 --fs 0") == {
        "--s": "must be a whole number of at least 1, got 0",
        "--fs": "must be a number above 0, got 0.0",
    }


def test_a_size_needs_both_sides() -> None:
    with pytest.raises(ConfigError, match="height: needs a width"):
        PromptLine.parse("a --h 64").request()


def test_dashes_within_a_prompt_are_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigError, match=r"goes into a \.toml"):
        PromptLine.parse("a fox -- and a hare")


def refused(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        PromptLine.parse(text).request()
    return [option_of(issue.path) for issue in caught.value.issues]


def test_pictures_and_clips_are_what_a_request_shows() -> None:
    line = "a fox --i a.png --ei b.png --ci d e.png --ci f.png --of target_index=1,control_index=0;2"

    assert PromptLine.parse(line).request() == Request(
        "a fox",
        image="a.png",
        last="b.png",
        control=["d e.png", "f.png"],
        single_frame=SingleFrame(target=1, controls=(0, 2)),
    )
    assert PromptLine.parse("a fox --cn c.mp4").request() == Request("a fox", control="c.mp4")


def test_guidance_as_an_input_goes_with_two_passes() -> None:
    assert PromptLine.parse("a fox --g 6").request() == Request("a fox", guidance=Embedded(scale=6.0))
    both = PromptLine.parse("a fox --g 6 --l 5").request()
    assert both == Request("a fox", guidance=Embedded(scale=6.0, classifier_free=5.0))


def test_control_pictures_and_a_control_clip_do_not_go_together() -> None:
    assert refused("a fox --cn c.mp4 --ci d.png") == ["--cn"]


@pytest.mark.parametrize("places", ["target_index=x", "no_2x", "target_index=1,control_index=1", "control_index=0;2"])
def test_places_in_time_that_make_no_sense_are_refused(places: str) -> None:
    assert set(refused(f"a fox --ci d.png --of {places}")) == {"--of"}


def test_a_single_control_picture_may_stand_without_a_list() -> None:
    assert PromptLine.from_dict({"prompt": "a", "control_image_path": "b.png"}).control_image_path == ("b.png",)


@given(
    st.builds(
        PromptLine,
        words,
        seed=st.none() | st.integers(0, 9),
        cfg_scale=st.none() | numbers,
        control_image_path=st.lists(words),
    )
)
def test_a_line_survives_toml(line: PromptLine) -> None:
    assert PromptLine.from_toml(line.to_toml()) == line
