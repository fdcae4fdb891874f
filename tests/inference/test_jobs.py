from __future__ import annotations

import numpy as np
import pytest
import torch

from musubi.core.events import Progress
from musubi.inference.decoding import decode, opened_decoder
from musubi.inference.denoising import ready
from musubi.inference.jobs import draw_job
from musubi.inference.media import Image
from musubi.inference.pipeline import Pipeline
from musubi.inference.prompts import encode_prompts, words_of
from musubi.inference.request import Request
from musubi.noise.samplers import Sampler, UniPC
from musubi.testing.toy import Toy
from tests.inference.showing import Showing

CPU, FLOAT = torch.device("cpu"), torch.float32


def test_a_job_on_a_loaded_model_gives_what_the_pipeline_gives_for_the_request() -> None:
    toy, request, sampler = Toy(), Request("a red fox", size=(64, 48), seed=7), UniPC(shift=3.0)
    job = request.job(toy)
    words = words_of(toy, job.texts)
    prompts = encode_prompts(toy, words, device=CPU, dtype=FLOAT)

    with ready(toy, loras=(), policies=(), device=CPU, dtype=FLOAT) as loaded:
        latents = draw_job(toy, loaded, prompts, job, words=words, sampler=sampler, device=CPU, dtype=FLOAT)

    assert latents.shape == (1, *toy.geometry.latent_shape(job.size, job.frames))
    with opened_decoder(toy, device=CPU) as decoder:
        picture = Image(decode(toy, decoder, latents)[0, 0])
    assert picture == Pipeline(model=toy, device="cpu").with_sampler(sampler).draw(request)


@pytest.mark.parametrize("sampler", [None, UniPC(shift=2.0)])
def test_a_requests_shift_takes_the_place_of_the_samplers(sampler: Sampler | None) -> None:
    pipeline = Pipeline(model=Toy(), device="cpu", sampler=sampler)
    shifted = pipeline.with_sampler((sampler or Toy().sampler).replace(shift=5.0))

    asked = pipeline.draw(Request("a red fox", shift=5.0))

    assert asked == shifted.draw(Request("a red fox"))
    assert asked != pipeline.draw(Request("a red fox"))


CLIP = np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), dtype=np.uint8)


def distance(strength: float) -> float:
    """Return how far from a clip lies what is made of it, drawn with steps of equal length."""
    pipeline = Pipeline(model=Showing(), device="cpu")
    clip = Request("a red fox", video=CLIP, frames=9, strength=strength, steps=10, guidance=1.0)
    whole = pipeline.draw(clip.replace(strength=0.1)).to_numpy().astype(int)
    return float(np.abs(pipeline.draw(clip).to_numpy() - whole).mean())


def test_a_clip_is_changed_the_more_the_greater_the_strength() -> None:
    distances = [distance(strength) for strength in (0.1, 0.3, 0.6, 0.9)]

    assert distances[0] == 0
    assert distances == sorted(distances)
    assert len(set(distances)) == 4


def test_of_a_clip_only_the_last_steps_are_drawn() -> None:
    told: list[tuple[int, int]] = []
    request = Request("a red fox", video=CLIP, frames=9, strength=0.3, steps=10)

    Pipeline(model=Showing(), device="cpu").draw(
        request,
        on=[lambda e: told.append((e.done, e.total)) if isinstance(e, Progress) and e.task == "sampling" else None],
    )

    assert told == [(1, 3), (2, 3), (3, 3)]
