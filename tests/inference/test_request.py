from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi import Embedded, FluxKontext, NormPreserving, OwnSize, QwenImage, Wan
from musubi.architecture import Geometry
from musubi.core.errors import ConfigError, Issue
from musubi.inference.media import Image
from musubi.inference.request import Request, nearest_frames, nearest_size
from musubi.inference.single_frame import SingleFrame
from musubi.noise.guidance import ClassifierFree
from musubi.testing.toy import Toy
from tests.inference.showing import Showing

TOY = Toy()
names = st.sampled_from(["a.png", "some folder/b.mp4"])


class Unfit(ClassifierFree):
    """Guidance that fits no model."""

    def misfits(self, *, experts: Sequence[str], blocks: int | None) -> Iterable[Issue]:
        yield Issue("scale", f"fits no {experts} of {blocks} blocks")


def issues(request: Request, model: Toy) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        request.job(model)
    return {issue.path: issue.message for issue in caught.value.issues}


requests = st.builds(
    Request,
    st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=20),
    negative=st.none() | st.just("blurred"),
    size=st.none() | st.tuples(st.integers(1, 99), st.integers(1, 99)),
    frames=st.none() | st.integers(1, 99),
    steps=st.none() | st.integers(1, 99),
    guidance=st.none() | st.floats(0, 20) | st.builds(ClassifierFree, scale=st.floats(0, 20)),
    shift=st.none() | st.floats(0.5, 20),
    fps=st.none() | st.floats(1, 60),
    seed=st.none() | st.integers(0, 2**31),
    fit=st.sampled_from(["exact", "nearest"]),
    image=st.none() | names,
    last=st.none() | names,
    control=st.lists(names, max_size=2),
    video=st.none() | names,
    strength=st.floats(0.01, 1),
    trim_tail=st.integers(0, 3),
)


def test_gaps_are_filled_with_the_models_own_defaults() -> None:
    job, usual = Request("a fox").job(TOY), TOY.generation

    assert (job.size, job.frames, job.steps, job.fps) == (usual.size, usual.frames, usual.steps, usual.fps)
    assert (job.guidance, job.negative, job.seed) == (ClassifierFree(scale=2.0), usual.negative, 0)


def test_what_is_said_is_kept() -> None:
    request = Request("a fox", size=(96, 64), frames=9, steps=3, guidance=1.0, fps=12, seed=7, negative="grey")

    job = request.job(TOY)

    assert (job.size, job.frames, job.steps, job.fps, job.seed) == ((96, 64), 9, 3, 12, 7)
    assert job.texts == ("a fox",)
    assert request.replace(guidance=2.0).job(TOY).texts == ("a fox", "grey")


def test_everything_the_model_cannot_make_is_listed_with_the_nearest_it_can() -> None:
    with pytest.raises(ConfigError) as caught:
        Request("a fox", size=(100, 60), frames=7).job(TOY)

    size, frames = caught.value.issues
    assert (size.path, size.hint) == ("size", 'nearest are 96x48 and 112x64, or fit="nearest"')
    assert (frames.path, frames.hint) == ("frames", 'nearest are 5 and 9, or fit="nearest"')


@given(width=st.integers(1, 500), height=st.integers(1, 500), frames=st.integers(1, 200))
def test_the_nearest_fit_is_always_accepted_and_near(width: int, height: int, frames: int) -> None:
    job = Request("a fox", size=(width, height), frames=frames, fit="nearest").job(TOY)

    geometry = TOY.geometry
    assert all(abs(a - b) <= geometry.multiple / 2 or b == 16 for a, b in zip((width, height), job.size, strict=True))
    assert abs(frames - job.frames) <= geometry.frame_step / 2


def test_a_legal_size_is_its_own_nearest_and_stills_have_one_frame() -> None:
    assert nearest_size(TOY.geometry, (64, 48)) == (64, 48)
    assert nearest_frames(attrs.evolve(Geometry(), video=False), 9) == 1


def test_bad_numbers_are_refused_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Request("a fox", frames=0, steps=-1, shift=0, fps=0)
    assert [issue.path for issue in caught.value.issues] == ["frames", "steps", "shift", "fps"]

    with pytest.raises(ConfigError) as caught:
        Request("a fox", guidance=-1.0, size=(0, 16))
    assert [issue.path for issue in caught.value.issues] == ["guidance", "size"]


def test_without_a_seed_every_job_has_another_one() -> None:
    assert len({Request("a fox", seed=None).job(TOY).seed for _ in range(4)}) > 1


@given(request=requests)
def test_a_request_survives_toml(request: Request) -> None:
    assert Request.from_toml(request.to_toml()) == request


def test_a_jobs_metadata_tells_how_to_repeat_it() -> None:
    facts = Request("a fox", seed=7, negative="grey", guidance=3.5, steps=4).job(TOY).metadata

    assert facts == {
        "prompt": "a fox",
        "negative_prompt": "grey",
        "seed": "7",
        "steps": "4",
        "size": "64x64",
        "guidance": "3.5",
    }


def test_a_shift_that_was_asked_for_is_told() -> None:
    job = Request("a fox", shift=3.5).job(TOY)

    assert job.shift == 3.5
    assert job.metadata["shift"] == "3.5"
    assert "shift" not in Request("a fox").job(TOY).metadata


def test_what_is_shown_to_a_model_is_what_it_looks_at() -> None:
    shown = Request("a fox", image="a.png", video="c.mp4", control=["b.png"])

    assert shown.job(Showing()).given.image == Path("a.png")
    assert set(issues(shown, TOY)) == {"image", "video", "control"}
    assert issues(Request("a fox", last="b.png"), Showing(required=("image",))) == {
        "image": "is missing: Showing needs the first picture"
    }


def test_the_need_of_a_job_can_be_asked_for_without_its_pictures() -> None:
    assert Request("").job(Showing(required=("image",)), planned=True).given.sources == {}


def test_what_is_shown_and_how_is_told_in_the_metadata() -> None:
    facts = Request("a fox", video="in/c.mp4", frames=9, strength=0.5, trim_tail=3).job(Showing()).metadata

    assert {name: facts[name] for name in ("video", "strength", "trim_tail")} == {
        "video": "c.mp4",
        "strength": "0.5",
        "trim_tail": "3",
    }


def test_a_strength_that_leaves_no_step_is_refused() -> None:
    request = Request("a fox", video="c.mp4", steps=4, strength=0.25)

    assert request.job(Showing()).steps_taken == 1
    assert Request("a fox", steps=4, strength=0.1).job(Showing()).steps_taken == 4, "there is no clip to change"
    assert set(issues(request.replace(strength=0.2), Showing())) == {"strength"}
    for strength in (0.0, 1.1, True):
        with pytest.raises(ConfigError, match="strength: must be a number"):
            Request("a fox", strength=strength)


def test_a_frame_of_the_clip_must_be_left() -> None:
    assert Request("a fox", frames=5, trim_tail=4).job(TOY).trim_tail == 4
    assert set(issues(Request("a fox", frames=5, trim_tail=5), TOY)) == {"trim_tail"}


def test_a_single_frame_has_a_place_for_every_control_picture() -> None:
    places = SingleFrame(target=1, controls=(0,))
    request = Request("a fox", control="a.png", single_frame=places)

    job = request.job(Showing())
    assert (job.frames, job.model(Showing()).target_position) == (1, 1)
    assert set(issues(request.replace(frames=5), Showing())) == {"frames"}
    assert set(issues(request, TOY)) == {"single_frame"}
    with pytest.raises(ConfigError, match="control: has 0 pictures, single_frame places for 1"):
        Request("a fox", single_frame=places)


def test_what_lies_in_memory_goes_into_no_file() -> None:
    request = Request("a fox", image=Image(np.zeros((8, 8, 3))))

    assert request == Request("a fox", image=np.zeros((8, 8, 3)))
    with pytest.raises(ConfigError, match="image: what lies in memory"):
        request.to_toml()


def test_what_is_no_picture_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigError) as caught:
        Request("a fox", image=7, control=["a.png", None])

    assert [issue.path for issue in caught.value.issues] == ["image", "control[1]"]


def test_guidance_that_does_not_fit_the_model_is_refused_at_once() -> None:
    assert set(issues(Request("a fox", guidance=Unfit()), TOY)) == {"guidance.scale"}


def test_a_number_scales_the_model_s_own_rule() -> None:
    assert Request("x", guidance=3.0).job(QwenImage.text_to_image()).guidance == NormPreserving(scale=3.0)
    assert Request("x", guidance=3.0).job(FluxKontext.dev()).guidance == Embedded(scale=3.0)
    assert Request("x", guidance=3.0).job(Wan.t2v_1_3b()).guidance == ClassifierFree(scale=3.0)


def test_guidance_as_an_input_is_refused_where_there_is_no_such_input() -> None:
    with pytest.raises(ConfigError, match=r"guidance: Qwen-Image has no guidance as an input.*ClassifierFree"):
        Request("x", guidance=Embedded(scale=3.0)).job(QwenImage.text_to_image())


def test_sizes_of_pictures_are_refused_where_all_have_the_result_s() -> None:
    with pytest.raises(ConfigError, match=r"control_size: .* shows all pictures at the size of the result"):
        Request("x", control_size=OwnSize()).job(Wan.t2v_1_3b())
