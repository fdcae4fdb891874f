from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from musubi.core.errors import ConfigError
from musubi.inference.denoising import ready
from musubi.inference.loras import LoRAUse
from musubi.memory.block_swap import BlockSwap
from musubi.memory.policy import MemoryPolicy
from musubi.memory.quant_linear import QuantLinear
from musubi.memory.quantise import FP8Scaled
from musubi.networks.file import LoRAFile
from musubi.testing.toy import Toy, ToyConditions, original_weights

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


def _eight_bits(folder: Path, form: str, dtype: torch.dtype = torch.float8_e4m3fn) -> tuple[Toy, Toy]:
    """Write a toy whose matrices are of 8 bits, and what they mean in float32, and return both."""
    narrow, wide = dict(original_weights(Toy())), dict(original_weights(Toy()))
    for name, tensor in original_weights(Toy()).items():
        if tensor.ndim != 2:
            continue
        rows, inputs = tensor.shape
        shape = {"none": None, "tensor": (), "row": (rows, 1), "block": (rows, inputs // 8, 1)}[form]
        scale = None if shape is None else tensor.abs().max().expand(shape) / torch.tensor(100.0)
        narrow[name] = (tensor if scale is None else tensor / scale.flatten()[0]).to(dtype)
        wide[name] = narrow[name].float() * (1 if scale is None else scale.flatten()[0])
        if scale is not None:
            narrow[name.replace(".weight", ".scale_weight")] = scale.contiguous()
    save_file(narrow, folder / "narrow.safetensors")
    save_file(wide, folder / "wide.safetensors")
    return Toy().with_weights(dit=folder / "narrow.safetensors"), Toy().with_weights(dit=folder / "wide.safetensors")


def _answer(toy: Toy, loras: Sequence[tuple[LoRAUse, LoRAFile]] = ()) -> tuple[torch.Tensor, nn.Module]:
    with ready(toy, loras=loras, policies=(), device=CPU, dtype=torch.float32) as loaded:
        x = torch.randn(2, 12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        conditions = ToyConditions(torch.ones(2, 16))
        return loaded.denoiser.velocity(loaded.model, x, torch.tensor([0.3, 0.9]), conditions), loaded.model


@pytest.mark.parametrize("form", ["none", "tensor", "row", "block"])
def test_a_file_of_8_bits_stays_so_in_memory_and_answers_as_what_it_means(form: str, tmp_path: Path) -> None:
    narrow, wide = _eight_bits(tmp_path, form)

    answer, model = _answer(narrow)

    torch.testing.assert_close(answer, _answer(wide)[0], atol=1e-5, rtol=1e-5)
    kept = [module for module in model.modules() if isinstance(module, QuantLinear)]
    assert len(kept) == 5 * narrow.depth
    assert {module.weight.dtype for module in kept} == {torch.float8_e4m3fn}


@pytest.mark.parametrize(
    ("form", "dtype"),
    [(form, torch.float8_e4m3fn) for form in ("none", "tensor", "row", "block")]
    + [(form, torch.int8) for form in ("tensor", "row", "block")],
)
def test_a_lora_is_merged_into_a_file_of_8_bits(
    form: str, dtype: torch.dtype, toy_lora: LoRAFile, tmp_path: Path
) -> None:
    narrow, wide = _eight_bits(tmp_path, form, dtype)
    merged = [(LoRAUse(loaded=toy_lora, merge=True), toy_lora)]

    (answer, _), (exact, _), (without, _) = _answer(narrow, merged), _answer(wide, merged), _answer(wide)

    assert (answer - exact).norm() < 0.2 * (exact - without).norm()


def test_a_lora_is_attached_to_a_file_of_8_bits(toy_lora: LoRAFile, tmp_path: Path) -> None:
    narrow, wide = _eight_bits(tmp_path, "row")
    attached = [(LoRAUse(loaded=toy_lora), toy_lora)]

    torch.testing.assert_close(_answer(narrow, attached)[0], _answer(wide, attached)[0], atol=1e-4, rtol=1e-4)


def test_a_file_of_8_bits_is_not_quantised_again(tmp_path: Path) -> None:
    narrow, _ = _eight_bits(tmp_path, "tensor")

    with (
        pytest.raises(ConfigError, match="quantised already"),
        ready(narrow, loras=(), policies=(FP8Scaled(),), device=CPU, dtype=torch.float32),
    ):
        pass
