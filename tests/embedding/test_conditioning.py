from __future__ import annotations

import torch
from torch import Tensor

from musubi.embedding.conditioning import PreciseConditioning, PreciseTextTime
from musubi.embedding.sinusoid import Sinusoid

TIME, GUIDANCE = torch.tensor([700.3, 20.0]), torch.tensor([6000.0, 1000.0])


def _conditioning(*, guided: bool = True) -> PreciseConditioning:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PreciseConditioning(16, 20, guided=guided, waves=Sinusoid())


def _text(width: int) -> Tensor:
    return torch.randn(2, width, generator=torch.Generator().manual_seed(1)).bfloat16()


def test_all_is_float32_under_autocast_too() -> None:
    model = _conditioning()

    plain = model(TIME, GUIDANCE, _text(20).float())
    with torch.autocast("cpu", torch.bfloat16):
        cast = model(TIME, GUIDANCE, _text(20))

    assert cast.dtype == torch.float32
    assert torch.equal(plain, cast)


def test_it_is_the_sum_of_time_guidance_and_text() -> None:
    model = _conditioning()

    parts = [model(TIME, None, _text(20)), model.guidance_embedder(model.time_proj(GUIDANCE))]  # type: ignore[misc]

    torch.testing.assert_close(model(TIME, GUIDANCE, _text(20)), sum(parts))


def test_a_model_without_guidance_has_no_parameters_of_it() -> None:
    model = _conditioning(guided=False)

    assert not any("guidance" in name for name, _ in model.named_parameters())
    assert torch.equal(model(TIME, GUIDANCE, _text(20)), model(TIME, None, _text(20)))


def test_only_the_result_for_text_has_its_type() -> None:
    model = PreciseTextTime(16, 24)

    with torch.autocast("cpu", torch.bfloat16):
        found = model(TIME, _text(24))

    assert found.dtype == torch.bfloat16
    assert torch.equal(found, model(TIME, _text(24).float()).bfloat16())
