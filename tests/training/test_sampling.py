from __future__ import annotations

from typing import ClassVar

import attrs
import numpy as np
import pytest
import torch

from musubi import CancelToken, ConfigError, Pipeline, Request, Trainer
from musubi.architecture import Component
from musubi.inference.denoising import Ready
from musubi.inference.engine import SamplingCancelledError
from musubi.inference.media import Image, Video
from musubi.memory.policy import MemoryPolicy, Phase
from musubi.testing.toy import Toy, ToyDenoiser
from musubi.training.processes import Processes
from musubi.training.sampling import Sampling
from tests.inference.showing import Showing
from tests.inference.watched import Watched

CPU = torch.device("cpu")
RED = np.full((8, 8, 3), (255, 0, 0), np.uint8)


@attrs.frozen(kw_only=True)
class Noting(MemoryPolicy):
    """Note in which components it is asked to act."""

    kind: ClassVar[str] = "noting"
    phase: ClassVar[Phase] = Phase.SWAP
    for_components: ClassVar[bool] = True

    seen: list[str] = attrs.field(factory=list)

    def within(self, component: Component) -> tuple[MemoryPolicy, ...]:
        self.seen.append(component.name)
        return ()


def prepared(trainer: Trainer[Toy]) -> Sampling:
    return Sampling.prepare(trainer, Processes("cpu"), dtype=torch.float32)


def draw(
    sampling: Sampling, cancel: CancelToken | None = None, *, denoiser: ToyDenoiser | None = None
) -> tuple[tuple[Image | Video, ...], list[tuple[int, int]]]:
    """Return what is drawn with the bare model, and what was told on the way."""
    denoiser = denoiser or Toy().denoiser()
    model = denoiser.load(Toy().experts[0], device=CPU, dtype=torch.float32)
    told: list[tuple[int, int]] = []
    drawn = sampling.draw(
        Ready(denoiser=denoiser, model=model, adapters=()),
        device=CPU,
        dtype=torch.float32,
        cancel=cancel or CancelToken(),
        on_step=lambda done, total: told.append((done, total)),
    )
    return drawn, told


def test_what_a_request_leaves_open_is_the_commonest_buckets(trainer: Trainer[Toy]) -> None:
    asked = trainer.with_samples("one", Request("two", size=(32, 32)), Request("three", frames=5))

    jobs = prepared(asked).jobs

    common = next(iter(trainer.cache.manifest().buckets))
    size = tuple(map(int, common.split("x")[:2]))
    assert [(job.size, job.frames) for job in jobs] == [(size, 1), ((32, 32), 1), (size, 5)]


def test_steps_are_counted_over_all_of_them(trainer: Trainer[Toy]) -> None:
    sampling = prepared(trainer.with_samples(Request("one", steps=2), Request("two", steps=3)))

    drawn, told = draw(sampling)

    assert len(drawn) == 2
    assert told == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_the_same_is_drawn_every_time_from_the_same_weights(trainer: Trainer[Toy]) -> None:
    sampling = prepared(trainer.with_samples(Request("one", seed=3, size=(32, 32))))

    (one,), (other,) = draw(sampling)[0], draw(sampling)[0]

    assert isinstance(one, Image)
    assert isinstance(other, Image)
    assert (one.to_numpy() == other.to_numpy()).all()


def test_the_decoder_is_loaded_for_every_drawing_and_freed_after_it(trainer: Trainer[Toy]) -> None:
    watched = Watched()
    sampling = prepared(trainer.replace(model=watched).with_samples(Request("one", size=(32, 32))))

    draw(sampling)
    draw(sampling)

    assert watched.alive.seen == [("text",), ("vae",), ("vae",)]
    watched.codec().load("vae", device=CPU, dtype=torch.float32)
    assert watched.alive.seen[-1] == ("vae",), "nothing of the drawings is left"


def test_policies_for_components_reach_the_encoder_and_the_decoder(trainer: Trainer[Toy]) -> None:
    memory = Noting()

    draw(prepared(trainer.with_memory(memory).with_samples(Request("one", size=(32, 32)))))

    assert memory.seen == ["text", "vae"]


def test_nothing_asked_for_is_nothing_drawn(trainer: Trainer[Toy]) -> None:
    assert draw(prepared(trainer)) == ((), [])


def test_a_cancelled_drawing_stops_at_once(trainer: Trainer[Toy]) -> None:
    token = CancelToken()
    token.cancel()

    with pytest.raises(SamplingCancelledError):
        draw(prepared(trainer.with_samples("one")), token)


def test_pictures_to_look_at_are_encoded_before_the_model_is_there_and_freed(trainer: Trainer[Toy]) -> None:
    showing = Showing(required=("image",))
    asked = trainer.replace(model=showing).with_samples(
        Request("one", image=RED, size=(32, 32)), Request("one", image=255 - RED, size=(32, 32))
    )

    sampling = prepared(asked)
    seen = list(showing.alive.seen)
    (red, blue), _ = draw(sampling, denoiser=showing.denoiser())

    assert seen == [("text",), ("vae",)], "one after the other, for both samples together"
    assert (red.to_numpy() != blue.to_numpy()).any()


def test_a_sample_is_what_the_pipeline_draws_for_the_request(trainer: Trainer[Toy]) -> None:
    showing = Showing()
    request = Request("one", image=RED, size=(32, 32), frames=9, trim_tail=3)

    (clip,), _ = draw(prepared(trainer.replace(model=showing).with_samples(request)), denoiser=showing.denoiser())

    drawn = Pipeline(model=Showing(), device="cpu").draw(request)
    assert (clip.to_numpy() == drawn.to_numpy()).all()


def test_a_sample_without_the_picture_it_needs_is_refused_with_the_trainer(trainer: Trainer[Toy]) -> None:
    with pytest.raises(ConfigError, match=r"samples\[0\]\.image: is missing"):
        trainer.replace(model=Showing(required=("image",))).with_samples("one")


def test_a_sample_whose_picture_lies_in_memory_cannot_be_written_down(trainer: Trainer[Toy]) -> None:
    with pytest.raises(ConfigError, match="what lies in memory"):
        trainer.replace(model=Showing()).with_samples(Request("one", image=RED)).to_dict()
