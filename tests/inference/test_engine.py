from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
import pytest
import torch
from torch import Tensor, nn

from musubi.architecture import Expert
from musubi.core.control import CancelToken
from musubi.core.errors import ConfigError, MusubiError
from musubi.inference.engine import Chosen, SamplingCancelledError, Start, draw_noise, evaluating, sample_latents
from musubi.noise.guidance import ClassifierFree, Guidance
from musubi.noise.per_expert import PerExpert
from musubi.noise.samplers import Euler, OnStep, Sampler, UniPC, Velocity
from musubi.noise.skip_layer import SkipLayer
from musubi.testing.toy import Toy

if TYPE_CHECKING:
    from tests.inference.conftest import Loaded

SHAPE = (12, 1, 8, 8)


def sampled(
    loaded: Loaded,
    *prompts: str,
    seeds: tuple[int, ...] = (7,),
    guidance: float | Guidance = 3.0,
    model: Chosen | None = None,
    experts: Sequence[Expert] = (Expert(),),
    start: Start | None = None,
    sampler: Sampler | None = None,
    dtype: torch.dtype = torch.float32,
    adapters: tuple[nn.Module, ...] = (),
    on_step: OnStep | None = None,
    cancel: CancelToken | None = None,
) -> Tensor:
    rule = guidance if isinstance(guidance, Guidance) else ClassifierFree(scale=guidance)
    return sample_latents(
        loaded.denoiser,
        model or loaded.model,
        draw_noise(SHAPE, seeds),
        positive=loaded.conditions(*prompts),
        negative=loaded.conditions(*[""] * len(prompts)) if rule.uses_negative else None,
        sampler=sampler or Euler(shift=3.0),
        guidance=rule,
        steps=4,
        tokens=loaded.geometry.tokens(SHAPE),
        device=torch.device("cpu"),
        dtype=dtype,
        adapters=adapters,
        experts=experts,
        blocks=("blocks",),
        start=start,
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


@attrs.frozen(eq=False)
class Network:
    model: nn.Module
    adapters: tuple[nn.Module, ...] = ()


PAIR = (Expert(name="high", low=0.9), Expert(name="low", high=0.9))
"""Of the levels 1, 0.9, 0.75 and 0.5 that a shift of 3 gives, float32 has the second just below the boundary."""


def weights(seed: int) -> nn.Module:
    toy = Toy(seed=seed)
    return toy.denoiser().load(toy.experts[0], device=torch.device("cpu"), dtype=torch.float32)


def test_each_step_asks_the_expert_of_its_level_which_is_in_evaluation_with_its_adapters(loaded: Loaded) -> None:
    dropout = nn.Dropout()
    high, low = Network(weights(1).train(), (dropout,)), Network(loaded.model.train())
    levels: list[float] = []

    def chosen(sigma: float) -> Network:
        levels.append(sigma)
        return high if sigma >= 0.9 else low

    latents = sampled(loaded, "a red fox", model=chosen, experts=PAIR)

    assert levels == [1.0, 0.9, 0.75, 0.5]
    assert loaded.denoiser.modes == [False] * 8
    assert all(module.training for module in (high.model, dropout, low.model))
    assert not torch.equal(latents, sampled(loaded, "a red fox"))


def test_one_network_for_both_experts_is_one_network(loaded: Loaded) -> None:
    network = Network(loaded.model)

    both = sampled(loaded, "a red fox", model=lambda _: network, experts=PAIR)

    assert torch.equal(both, sampled(loaded, "a red fox"))


def test_guidance_per_expert_changes_with_the_expert(loaded: Loaded) -> None:
    sampled(loaded, "a red fox", experts=PAIR, guidance=PerExpert(high=3.0, low=1.0))

    assert [round(sigma.item(), 6) for sigma in loaded.denoiser.asked] == [1.0, 1.0, 0.9, 0.9, 0.75, 0.5]


def test_equal_rules_for_both_experts_are_one_rule(loaded: Loaded) -> None:
    both = sampled(loaded, "a red fox", experts=PAIR, guidance=PerExpert(high=3.0, low=3.0))

    assert torch.equal(both, sampled(loaded, "a red fox"))


def test_skipping_a_layer_changes_the_result_and_leaves_the_model_alone(loaded: Loaded) -> None:
    plain = sampled(loaded, "a red fox")

    steered = sampled(loaded, "a red fox", guidance=SkipLayer(blocks=(1,), base=ClassifierFree(scale=3.0)))

    assert len(loaded.denoiser.asked) == 8 + 8 + 1
    assert not torch.equal(steered, plain)
    assert torch.equal(sampled(loaded, "a red fox"), plain)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (SkipLayer(blocks=(2,)), "blocks: there is no block 2"),
        (PerExpert(high=4.0, low=3.0), "this model has no experts"),
    ],
)
def test_guidance_that_does_not_fit_the_model_is_refused_before_it_is_asked(
    loaded: Loaded, rule: Guidance, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        sampled(loaded, "a red fox", guidance=rule)

    assert loaded.denoiser.asked == []


def test_a_change_takes_the_last_of_the_steps_from_latents_with_noise_in_them(loaded: Loaded) -> None:
    seen: list[Tensor] = []
    clean = draw_noise(SHAPE, [1])
    half = Start(latents=clean, strength=0.6)

    class Watched(Euler):
        def sample(self, velocity: Velocity, x: Tensor, sigmas: Tensor, on_step: OnStep | None = None) -> Tensor:
            seen.append(x)
            return super().sample(velocity, x, sigmas, on_step)

    sampled(loaded, "a red fox", guidance=1.0, start=half, sampler=Watched(shift=3.0))

    assert [sigma.item() for sigma in loaded.denoiser.asked] == [0.75, 0.5]
    torch.testing.assert_close(seen[0], 0.75 * draw_noise(SHAPE, [7]) + 0.25 * clean)


def test_a_change_of_all_is_a_generation_from_noise(loaded: Loaded) -> None:
    whole = Start(latents=draw_noise(SHAPE, [1]), strength=1.0)

    assert torch.equal(sampled(loaded, "a red fox", start=whole), sampled(loaded, "a red fox"))


def test_a_change_without_a_step_is_refused(loaded: Loaded) -> None:
    with pytest.raises(MusubiError, match="none of 4 steps is left to take"):
        sampled(loaded, "a red fox", start=Start(latents=draw_noise(SHAPE, [1]), strength=0.2))
