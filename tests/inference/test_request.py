from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi.architecture import Geometry
from musubi.core.errors import ConfigError
from musubi.inference.request import Request, nearest_frames, nearest_size
from musubi.noise.guidance import ClassifierFree
from musubi.testing.toy import Toy

TOY = Toy()
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
)


def test_gaps_are_filled_with_the_models_own_defaults() -> None:
    job, usual = Request("a fox").job(TOY), TOY.generation

    assert (job.size, job.frames, job.steps, job.fps) == (usual.size, usual.frames, usual.steps, usual.fps)
    assert (job.guidance, job.negative, job.seed) == (ClassifierFree(scale=usual.guidance), usual.negative, 0)


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
