from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from musubi import NF4, FP8Cast, FP8Scaled, Int8Scaled, MemoryPolicy
from musubi.architecture import Layout
from musubi.core.errors import ConfigError
from musubi.memory.policy import FitContext, arrange, placed
from musubi.memory.quant_linear import QuantLinear
from tests.memory import tiny


@pytest.mark.parametrize("policy", [FP8Scaled(), Int8Scaled(), FP8Cast()], ids=lambda policy: policy.kind)
def test_the_linears_of_the_blocks_are_quantised_and_nothing_else(policy: MemoryPolicy, tmp_path: Path) -> None:
    model = tiny.loaded(tmp_path, [policy])

    quantised = {name for name, module in model.named_modules() if isinstance(module, QuantLinear)}

    assert quantised == {n for n, m in model.named_modules() if n.startswith("blocks.") and isinstance(m, nn.Linear)}
    kept = {f"{name}.{leaf}" for name in quantised for leaf in ("weight", "scale")}
    assert {parameter.dtype for name, parameter in model.named_parameters() if name not in kept} == {torch.float32}


def test_a_model_loaded_so_computes_with_the_dequantised_weights(tmp_path: Path) -> None:
    model, plain = tiny.loaded(tmp_path, [FP8Scaled()]), tiny.transformer()
    for name, module in model.named_modules():
        if isinstance(module, QuantLinear):
            plain.get_submodule(name).weight.data = module.dequantised()

    assert torch.equal(tiny.generation(model), tiny.generation(plain))
    assert not torch.equal(tiny.generation(model), tiny.generation(tiny.transformer()))


def test_adapters_train_on_top_of_it_like_on_the_dequantised_weights(tmp_path: Path) -> None:
    model, plain = tiny.loaded(tmp_path, [FP8Scaled()]), tiny.transformer()
    for name, module in model.named_modules():
        if isinstance(module, QuantLinear):
            plain.get_submodule(name).weight.data = module.dequantised()
    first, second = tiny.adapters(model), tiny.adapters(plain)

    with first.attached(model), second.attached(plain):
        assert tiny.equal(tiny.step(model, first), tiny.step(plain, second))


def test_the_scales_have_the_type_of_the_files_weights(tmp_path: Path) -> None:
    model = tiny.loaded(tmp_path, [FP8Scaled()], dtype=torch.bfloat16)

    scales = {name: p for name, p in model.named_parameters() if name.endswith(".scale")}

    assert {scale.dtype for scale in scales.values()} == {torch.bfloat16}
    assert scales["blocks.0.attn1.to_q.scale"].shape == (64, 1, 1)
    assert scales["blocks.0.ffn.net.2.scale"].shape == (64, 1)


def test_using_a_quantised_model_does_not_change_it(tmp_path: Path) -> None:
    model = tiny.loaded(tmp_path, [FP8Scaled()])
    before = tiny.snapshot(model)

    with placed(model, [FP8Scaled()], tiny.PLACEMENT):
        tiny.generation(model)

    assert tiny.unchanged(model, before)


def test_weights_of_8_bits_are_not_quantised_again() -> None:
    context = FitContext(title="a toy", layout=tiny.LAYOUT, stored="float8_e4m3fn")

    with pytest.raises(ConfigError, match=r"quantised already \(float8_e4m3fn\) .*leave this policy out"):
        arrange([FP8Scaled()], context)


def test_one_format_at_a_time() -> None:
    context = FitContext(title="a toy", layout=tiny.LAYOUT)

    with pytest.raises(ConfigError, match=r"memory\[1\]: FP8Scaled quantises the same weights"):
        arrange([FP8Scaled(), Int8Scaled()], context)


@pytest.mark.parametrize("policy", [FP8Scaled(), Int8Scaled(), FP8Cast(), NF4()], ids=lambda policy: policy.kind)
@pytest.mark.parametrize(
    ("context", "words"),
    [
        (FitContext(title="a toy", layout=tiny.LAYOUT, trains_base=True), "which then cannot be trained"),
        (FitContext(title="a toy", layout=tiny.LAYOUT, divided=True), "divided model"),
    ],
)
def test_quantised_weights_can_neither_be_trained_nor_divided(
    policy: MemoryPolicy, context: FitContext, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        arrange([policy], context)


@pytest.mark.parametrize(
    "make", [lambda: FP8Scaled(compute="fp8"), lambda: Int8Scaled(compute="int8")], ids=["fp8", "int8"]
)
def test_products_in_8_bits_need_a_scale_for_each_row(make: Callable[[], MemoryPolicy]) -> None:
    with pytest.raises(ConfigError, match=r"compute: .*add mode='channel', or leave compute out"):
        make()


@pytest.mark.parametrize("policy", [Int8Scaled(), FP8Cast(), NF4()], ids=lambda policy: policy.kind)
def test_every_format_trains_like_its_dequantised_weights(policy: MemoryPolicy, tmp_path: Path) -> None:
    model, plain = tiny.loaded(tmp_path, [policy]), tiny.transformer()
    quantised = {name: m for name, m in model.named_modules() if isinstance(m, QuantLinear)}
    for name, module in quantised.items():
        plain.get_submodule(name).weight.data = module.dequantised()
    first, second = tiny.adapters(model), tiny.adapters(plain)

    with first.attached(model), second.attached(plain):
        assert tiny.equal(tiny.step(model, first), tiny.step(plain, second))
    assert len(quantised) >= 6 * 8


def test_a_model_without_quantisable_weights_is_refused() -> None:
    context = FitContext(title="a toy", layout=Layout(blocks=("blocks",), adapters=()))

    with pytest.raises(ConfigError, match=r"memory\[0\]: a toy names no weights that can be quantised"):
        arrange([FP8Scaled()], context)
