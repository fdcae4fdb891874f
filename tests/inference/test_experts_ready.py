"""Two experts in a generation: each its levels, its LoRAs and, where they take turns, its own weights."""

from __future__ import annotations

import attrs
import pytest
import torch
from torch import Tensor

from musubi import BlockSwap, ConfigError
from musubi.inference.denoising import ExpertReady, Ready, ready
from musubi.inference.loras import EXPERT, LoRAUse
from musubi.memory.policy import MemoryPolicy
from musubi.networks.file import LoRAFile
from musubi.testing.toy import Toy, ToyConditions, ToyDenoiser
from tests.two_experts import BOUNDARY, HIGH, LOW, TwoToys

CPU = torch.device("cpu")
MODEL = TwoToys(depth=4)


def asked(loaded: Ready | ExpertReady, sigma: float, *, toy: Toy = MODEL) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 12, 1, 8, 8, generator=generator)
    cond = ToyConditions(torch.randn(1, 16, generator=generator))
    with torch.no_grad():
        return ToyDenoiser(toy).velocity(loaded.model, x, torch.tensor([sigma]), cond)


def alone(name: str, sigma: float, *loras: tuple[LoRAUse, LoRAFile]) -> Tensor:
    toy = MODEL.alone(HIGH if name == "high" else LOW)
    plain = [(attrs.evolve(use, expert=None), file) for use, file in loras]
    with ready(toy, loras=plain, policies=(), device=CPU, dtype=torch.float32) as loaded:
        return asked(loaded.at(sigma), sigma, toy=toy)


@pytest.mark.parametrize("policies", [(), (BlockSwap(blocks=1),), (BlockSwap(blocks=3),)])
def test_every_level_is_answered_by_its_expert_as_if_it_were_alone(policies: tuple[MemoryPolicy, ...]) -> None:
    with ready(MODEL, loras=(), policies=policies, device=CPU, dtype=torch.float32) as loaded:
        for sigma in (1.0, BOUNDARY, 0.9, 0.7, 0.1, 0.8, 0.749):
            expected = alone("high" if sigma >= BOUNDARY else "low", sigma)
            assert torch.equal(asked(loaded.at(sigma), sigma), expected)


@pytest.mark.parametrize("merge", [False, True])
def test_a_lora_is_used_on_the_expert_that_is_named(toy_lora: LoRAFile, merge: bool) -> None:
    use = LoRAUse(loaded=toy_lora, merge=merge, expert="high")

    with ready(MODEL, loras=[(use, toy_lora)], policies=(), device=CPU, dtype=torch.float32) as loaded:
        high, low = asked(loaded.at(0.9), 0.9), asked(loaded.at(0.2), 0.2)

    assert torch.equal(high, alone("high", 0.9, (use, toy_lora)))
    assert not torch.equal(high, alone("high", 0.9))
    assert torch.equal(low, alone("low", 0.2))


def test_without_a_name_the_file_tells_and_one_that_does_not_is_for_all(toy_lora: LoRAFile) -> None:
    told = attrs.evolve(toy_lora, metadata={EXPERT: "low"})
    named, other = LoRAUse(loaded=told), LoRAUse(loaded=told, expert="high")

    assert [named.concerns(expert, told, MODEL.experts) for expert in (HIGH, LOW)] == [False, True]
    assert [other.concerns(expert, told, MODEL.experts) for expert in (HIGH, LOW)] == [True, False]
    assert all(LoRAUse(loaded=toy_lora).concerns(expert, toy_lora, MODEL.experts) for expert in (HIGH, LOW))
    assert named.concerns(Toy().experts[0], told, Toy().experts)  # the LoRA of an expert on a model that has none


def test_an_expert_that_does_not_exist_is_refused_before_anything_is_loaded(toy_lora: LoRAFile) -> None:
    use = LoRAUse(loaded=toy_lora, expert="hihg")

    with (
        pytest.raises(ConfigError, match=r"loras\[0\]\.expert: there is no expert 'hihg'; did you mean 'high'"),
        ready(MODEL, loras=[(use, toy_lora)], policies=(), device=CPU, dtype=torch.float32),
    ):
        pass


def test_all_is_as_it_was_afterwards(toy_lora: LoRAFile) -> None:
    use = LoRAUse(loaded=toy_lora)

    with ready(MODEL, loras=[(use, toy_lora)], policies=(BlockSwap(blocks=2),), device=CPU, dtype=torch.float32) as one:
        models = {expert.expert: expert.model for expert in one.experts}

    for expert, model in models.items():
        before = MODEL.denoiser().load(expert, device=CPU, dtype=torch.float32).state_dict()
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
