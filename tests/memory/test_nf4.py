from __future__ import annotations

import sys

import pytest
import torch
from bitsandbytes import functional
from torch import nn

from musubi import NF4
from musubi.architecture import Layout
from musubi.core.errors import ConfigError
from musubi.keymap import KeyMap
from musubi.memory import formats, nf4
from musubi.memory.policy import check_machine
from musubi.memory.quant_linear import QuantLinear
from tests.memory import tiny


def test_the_numbers_are_those_of_bitsandbytes() -> None:
    weight = torch.randn(6, 128, generator=torch.Generator().manual_seed(0)).bfloat16()

    packed, scale = nf4.quantise(weight)

    theirs = functional.dequantize_4bit(*functional.quantize_4bit(weight, blocksize=64, quant_type="nf4"))
    assert torch.equal(nf4.dequantise(packed, scale, shape=(6, 128), dtype=torch.bfloat16), theirs)


def test_what_is_kept_are_plain_bytes_and_scales_that_can_be_moved() -> None:
    linear = QuantLinear.of(nn.Linear(128, 6), format=formats.NF4())
    before = linear(torch.ones(2, 128))

    for parameter in linear.parameters():
        parameter.data = parameter.data.clone()  # what a swap does

    assert {name: (p.dtype, tuple(p.shape)) for name, p in linear.named_parameters() if name != "bias"} == {
        "weight": (torch.uint8, (6, 64)),
        "scale": (torch.float32, (6, 2)),
    }
    assert torch.equal(linear(torch.ones(2, 128)), before)


def test_matrices_without_whole_blocks_stay_as_they_are() -> None:
    layout = Layout(blocks=(), adapters=(), quantise=(r"\d",))
    model = nn.ModuleList([nn.Linear(128, 6), nn.Linear(96, 6)])

    NF4().prepare(model, KeyMap(()), layout)
    hook = NF4().weight_hook(KeyMap(()), layout)

    assert [type(module) for module in model] == [QuantLinear, nn.Linear]
    assert hook is not None
    wide = torch.ones(6, 96)
    assert hook("1.weight", wide) is wide
    assert not isinstance(hook("0.weight", torch.ones(6, 128)), torch.Tensor)


def test_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)

    with pytest.raises(
        ConfigError, match=r'bitsandbytes, which is not installed .*pip install "musubi-trainer\[nf4\]"'
    ):
        check_machine([NF4()], tiny.PLACEMENT)
