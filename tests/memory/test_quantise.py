from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from musubi import FP8Scaled
from musubi.architecture import Layout
from musubi.core.errors import ConfigError, WeightsError
from musubi.memory.policy import FitContext, arrange, placed
from musubi.memory.quant_linear import QuantLinear
from tests.memory import tiny


def test_the_linears_of_the_blocks_are_quantised_and_nothing_else(tmp_path: Path) -> None:
    model = tiny.loaded(tmp_path, [FP8Scaled()])

    quantised = {name for name, module in model.named_modules() if isinstance(module, QuantLinear)}

    assert quantised == {n for n, m in model.named_modules() if n.startswith("blocks.") and isinstance(m, nn.Linear)}
    floats = {parameter.dtype for name, parameter in model.named_parameters() if not name.endswith("weight")}
    assert floats == {torch.float32}


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
    hook = FP8Scaled().weight_hook(tiny.KEYS, tiny.LAYOUT)
    assert hook is not None

    with pytest.raises(
        WeightsError, match=r"blocks\.0\.ffn\.0\.weight: is stored in 8 bits already .*leave FP8Scaled out"
    ):
        hook("blocks.0.ffn.0.weight", torch.zeros(4, 64).to(torch.float8_e4m3fn))


def test_a_model_without_quantisable_weights_is_refused() -> None:
    context = FitContext(title="a toy", layout=Layout(blocks=("blocks",), adapters=()))

    with pytest.raises(ConfigError, match=r"memory\[0\]: a toy names no weights that can be quantised"):
        arrange([FP8Scaled()], context)
