from __future__ import annotations

import pytest
import torch

from musubi.inference.denoising import ready
from musubi.inference.loras import LoRAUse
from musubi.memory.block_swap import BlockSwap
from musubi.memory.policy import MemoryPolicy
from musubi.memory.quantise import FP8Scaled
from musubi.networks.file import LoRAFile
from musubi.testing.toy import Toy, ToyConditions

CPU = torch.device("cpu")


def test_merging_moves_the_targeted_weights_and_no_others(toy_lora: LoRAFile) -> None:
    toy, use = Toy(), LoRAUse(loaded=toy_lora, merge=True)
    before = dict(toy.denoiser().load(toy.experts[0], device=CPU, dtype=torch.float32).named_parameters())

    with ready(toy, loras=[(use, toy_lora)], policies=(), device=CPU, dtype=torch.float32) as loaded:
        changed = {n for n, p in loaded.model.named_parameters() if not torch.equal(p, before[n])}

    adapted = {part.name for name in toy_lora.names for part in toy.keys.to_library(name)}
    assert changed == {f"{name}.weight" for name in adapted}
    assert loaded.adapters == ()


@pytest.mark.parametrize("policies", [(), (BlockSwap(blocks=1),)], ids=["plain", "block swap"])
def test_attaching_leaves_the_base_weights_and_no_hook_behind(
    toy_lora: LoRAFile, policies: tuple[MemoryPolicy, ...]
) -> None:
    toy, use = Toy(), LoRAUse(loaded=toy_lora, weight=0.5)
    before = dict(toy.denoiser().load(toy.experts[0], device=CPU, dtype=torch.float32).named_parameters())

    with ready(toy, loras=[(use, toy_lora)], policies=policies, device=CPU, dtype=torch.float32) as loaded:
        assert [adapters.weight for adapters in loaded.adapters] == [0.5]

    assert all(torch.equal(p, before[n]) for n, p in loaded.model.named_parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in loaded.model.modules())


def test_a_lora_is_merged_before_the_weights_are_quantised(toy_lora: LoRAFile) -> None:
    toy, use = Toy(), LoRAUse(loaded=toy_lora, merge=True)

    with ready(toy, loras=[(use, toy_lora)], policies=(FP8Scaled(),), device=CPU, dtype=torch.float32) as loaded:
        dtypes = {tensor.dtype for tensor in (*loaded.model.parameters(), *loaded.model.buffers())}

    assert torch.float8_e4m3fn in dtypes


@pytest.mark.parametrize("weight", [1.0, 0.4, -0.7])
def test_attached_and_merged_the_network_answers_the_same(toy_lora: LoRAFile, weight: float) -> None:
    answers: list[torch.Tensor] = []

    for merge in (False, True):
        use = LoRAUse(loaded=toy_lora, weight=weight, merge=merge)
        with ready(Toy(), loras=[(use, toy_lora)], policies=(), device=CPU, dtype=torch.float32) as loaded:
            x = torch.randn(2, 12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
            conditions = ToyConditions(torch.ones(2, 16))
            answers.append(loaded.denoiser.velocity(loaded.model, x, torch.tensor([0.3, 0.9]), conditions))

    torch.testing.assert_close(answers[0], answers[1], atol=1e-5, rtol=0)
