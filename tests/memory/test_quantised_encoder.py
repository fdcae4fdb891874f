"""A real text encoder with its Linears quantised, of transformers' own classes, which look at the types of weights."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn
from transformers import UMT5Config, UMT5EncoderModel
from transformers.models.umt5.modeling_umt5 import UMT5DenseGatedActDense

from musubi import NF4, FP8Cast, FP8Scaled, Int8Scaled
from musubi.architecture import Layout
from musubi.architectures.wan.text import GatedFeedForward
from musubi.keymap import KeyMap
from musubi.memory.quant_linear import QuantLinear
from musubi.memory.quantise import Quantise

LAYOUT = Layout(blocks=("encoder.block",), adapters=(), quantise=(r"encoder\.block\..*",))
IDS = torch.tensor([[3, 7, 11, 2, 1]])


def _encoder(*, adapted: bool) -> UMT5EncoderModel:
    torch.manual_seed(0)
    config = UMT5Config(
        vocab_size=32, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"
    )
    encoder = UMT5EncoderModel(config)
    encoder.eval().requires_grad_(requires_grad=False)
    for module in encoder.modules():
        if adapted and type(module) is UMT5DenseGatedActDense:
            module.__class__ = GatedFeedForward
    return encoder


def _output(encoder: nn.Module) -> Tensor:
    output: Tensor = encoder(input_ids=IDS).last_hidden_state
    return output


@pytest.mark.parametrize(
    ("policy", "most"),
    [
        (FP8Scaled(), 0.1),
        (Int8Scaled(), 0.03),
        (FP8Cast(), 0.1),
        (NF4(), 0.4),
        (Int8Scaled(mode="channel", compute="int8"), 0.06),
        (FP8Scaled(mode="channel", compute="fp8"), 0.15),
    ],
    ids=str,
)
def test_a_quantised_encoder_is_near_the_exact_one(policy: Quantise, most: float) -> None:
    quantised, exact = _encoder(adapted=True), _encoder(adapted=True)

    policy.prepare(quantised, KeyMap(()), LAYOUT)

    linears = {name: m for name, m in quantised.named_modules() if isinstance(m, QuantLinear)}
    assert len(linears) == 2 * 7
    assert 0 < float((_output(quantised) - _output(exact)).norm() / _output(exact).norm()) < most
    if policy.eight_bit is None:
        for name, module in linears.items():
            exact.get_submodule(name).weight.data = module.dequantised()
        assert torch.equal(_output(quantised), _output(exact))


@pytest.mark.parametrize("policy", [FP8Scaled(), NF4()], ids=str)
def test_a_feed_forward_that_rounds_to_the_stored_type_is_found_out(policy: Quantise) -> None:
    encoder = _encoder(adapted=False)

    policy.prepare(encoder, KeyMap(()), LAYOUT)

    with pytest.raises(TypeError, match=re.escape("rounded to the type of its stored weight")):
        _output(encoder)
