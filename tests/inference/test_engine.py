from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from musubi.core.control import CancelToken
from musubi.core.errors import MusubiError
from musubi.inference.engine import SamplingCancelledError, draw_noise, evaluating, sample_latents
from musubi.noise.guidance import ClassifierFree
from musubi.noise.samplers import Euler, OnStep, Sampler, UniPC

if TYPE_CHECKING:
    from tests.inference.conftest import Loaded

SHAPE = (12, 1, 8, 8)


def sampled(
    loaded: Loaded,
    *prompts: str,
    seeds: tuple[int, ...] = (7,),
    guidance: float = 3.0,
    sampler: Sampler | None = None,
    dtype: torch.dtype = torch.float32,
    adapters: tuple[nn.Module, ...] = (),
    on_step: OnStep | None = None,
    cancel: CancelToken | None = None,
) -> Tensor:
    return sample_latents(
        loaded.denoiser,
        loaded.model,
        draw_noise(SHAPE, seeds),
        positive=loaded.conditions(*prompts),
        negative=loaded.conditions(*[""] * len(prompts)) if guidance != 1 else None,
        sampler=sampler or Euler(shift=3.0),
        guidance=ClassifierFree(scale=guidance),
        steps=4,
        tokens=loaded.geometry.tokens(SHAPE),
        device=torch.device("cpu"),
        dtype=dtype,
        adapters=adapters,
        on_step=on_step,
        cancel=cancel,
    )


def test_noise_depends_on_the_seed_alone() -> None:
    noise = draw_noise(SHAPE, [7, 8])

    assert (noise.dtype, noise.shape) == (torch.float32, (2, *SHAPE))
    assert torch.equal(noise[1], draw_noise(SHAPE, [8])[0])
    assert not torch.equal(noise[0], noise[1])


@pytest.mark.parametrize("sampler", [Euler(shift=3.0), UniPC(shift=3.0)], ids=repr)
def test_equal_seeds_give_equal_latents(loaded: Loaded, sampler: Sampler) -> None:
    first = sampled(loaded, "a red fox", sampler=sampler)

    assert first.isfinite().all()
    assert first.dtype == torch.float32
    assert torch.equal(first, sampled(loaded, "a red fox", sampler=sampler))
    assert not torch.equal(first, sampled(loaded, "a red fox", sampler=sampler, seeds=(8,)))
    assert not torch.equal(first, sampled(loaded, "two blue birds in snow", sampler=sampler))


@pytest.mark.parametrize("sampler", [Euler(shift=3.0), UniPC(shift=3.0)], ids=repr)
def test_an_item_does_not_depend_on_its_neighbours(loaded: Loaded, sampler: Sampler) -> None:
    together = sampled(loaded, "a red fox", "two blue birds in snow", seeds=(7, 8), sampler=sampler)

    for i, prompt in enumerate(("a red fox", "two blue birds in snow")):
        alone = sampled(loaded, prompt, seeds=(7 + i,), sampler=sampler)
        torch.testing.assert_close(together[i], alone[0], atol=1e-5, rtol=1e-5)


def test_at_guidance_1_the_model_is_asked_once_a_step(loaded: Loaded) -> None:
    sampled(loaded, "a red fox", guidance=1.0)

    assert len(loaded.denoiser.asked) == 4


def test_with_guidance_it_is_asked_twice_and_always_told_float32_levels(loaded: Loaded) -> None:
    sampled(loaded, "a red fox", dtype=torch.bfloat16)

    assert len(loaded.denoiser.asked) == 8
    assert {(sigma.dtype, tuple(sigma.shape)) for sigma in loaded.denoiser.asked} == {(torch.float32, (1,))}


def test_guidance_takes_the_result_away_from_the_negative_prompt(loaded: Loaded) -> None:
    plain, strong = sampled(loaded, "a red fox", guidance=1.0), sampled(loaded, "a red fox", guidance=6.0)

    assert not torch.allclose(plain, strong, atol=1e-3)


def test_autocast_computes_in_the_dtype_and_leaves_the_state_in_float32(loaded: Loaded) -> None:
    exact, rounded = sampled(loaded, "a red fox"), sampled(loaded, "a red fox", dtype=torch.bfloat16)

    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(exact, rounded, atol=0.1, rtol=0.1)


def test_global_random_numbers_are_neither_used_nor_moved(loaded: Loaded) -> None:
    torch.manual_seed(1)
    first, state = sampled(loaded, "a red fox"), torch.get_rng_state()
    torch.manual_seed(2)

    second = sampled(loaded, "a red fox")

    assert torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_model_and_adapters_are_in_evaluation_meanwhile_and_as_before_afterwards(loaded: Loaded) -> None:
    dropout = nn.Dropout()
    loaded.model.train()
    loaded.model.get_submodule("blocks.0").eval()

    sampled(loaded, "a red fox", adapters=(dropout,))

    assert loaded.denoiser.modes == [False] * 8
    assert loaded.model.training
    assert dropout.training
    assert not loaded.model.get_submodule("blocks.0").training


def test_evaluation_ends_when_sampling_fails() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Linear(2, 2).eval())

    with pytest.raises(RuntimeError, match="stop"), evaluating(model):
        raise RuntimeError("stop")

    assert [module.training for module in model.modules()] == [True, True, False]


def test_latents_can_be_used_in_training_afterwards(loaded: Loaded) -> None:
    latents = sampled(loaded, "a red fox")

    assert (latents * torch.ones(1, requires_grad=True)).requires_grad


def test_every_step_is_reported(loaded: Loaded) -> None:
    heard: list[int] = []

    sampled(loaded, "a red fox", on_step=lambda done, _: heard.append(done))

    assert heard == [1, 2, 3, 4]


def test_cancelling_stops_before_the_next_step_and_restores_the_model(loaded: Loaded) -> None:
    cancel = CancelToken()
    loaded.model.train()

    with pytest.raises(SamplingCancelledError, match="cancelled after 2 of 4 steps"):
        sampled(loaded, "a red fox", cancel=cancel, on_step=lambda done, _: cancel.cancel() if done == 2 else None)

    assert loaded.model.training
    assert len(loaded.denoiser.asked) == 4


def test_a_result_that_is_not_finite_is_an_error_and_no_dark_picture(loaded: Loaded) -> None:
    with torch.no_grad():
        next(loaded.model.parameters()).fill_(float("nan"))

    with pytest.raises(MusubiError, match="not finite"):
        sampled(loaded, "a red fox", guidance=1.0)
