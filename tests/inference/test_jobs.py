from __future__ import annotations

import pytest
import torch

from musubi.inference.decoding import decode, opened_decoder
from musubi.inference.denoising import ready
from musubi.inference.jobs import draw_job
from musubi.inference.media import Image
from musubi.inference.pipeline import Pipeline
from musubi.inference.prompts import encode_prompts
from musubi.inference.request import Request
from musubi.noise.samplers import Sampler, UniPC
from musubi.testing.toy import Toy

CPU, FLOAT = torch.device("cpu"), torch.float32


def test_a_job_on_a_loaded_model_gives_what_the_pipeline_gives_for_the_request() -> None:
    toy, request, sampler = Toy(), Request("a red fox", size=(64, 48), seed=7), UniPC(shift=3.0)
    job = request.job(toy)
    prompts = encode_prompts(toy, job.texts, device=CPU, dtype=FLOAT)

    with ready(toy, loras=(), policies=(), device=CPU, dtype=FLOAT) as loaded:
        latents = draw_job(toy, loaded, prompts, job, sampler=sampler, device=CPU, dtype=FLOAT)

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
