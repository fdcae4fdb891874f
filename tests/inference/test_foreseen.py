from __future__ import annotations

import torch

from musubi.inference.foreseen import Shape, prediction
from musubi.memory.faking import faked
from musubi.testing.toy import Toy


def test_a_model_is_asked_as_a_step_asks_it_with_every_item_of_the_batch() -> None:
    toy = Toy()
    model = toy.denoiser().empty(toy.experts[0])
    latents = (12, 3, 4, 6)
    entry = {
        "latents": Shape(sizes=latents, dtype=torch.bfloat16),
        "varlen_text": Shape(sizes=(5, 16), dtype=torch.bfloat16),
    }

    with faked(model, like="cpu"):
        predicted = prediction(toy.denoiser(), entry, items=3, dtype=torch.bfloat16)(model)

    assert predicted.shape == (3, *latents)
    assert predicted.dtype == torch.float32
