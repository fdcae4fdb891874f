"""Files of a real model class load whole in diffusers' own loader and do there what they do here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from diffusers import WanPipeline, WanTransformer3DModel
from torch import Tensor, nn

from musubi.architectures.wan.spec import Wan
from musubi.networks.adapters import AdapterSet
from musubi.networks.keys import LAYOUTS, LayoutName
from musubi.networks.lora import DoRA, LoRA
from musubi.networks.targets import Targets
from tests.networks.small import trained

WAN = Wan.t2v_14b()


@pytest.fixture
def transformer() -> nn.Module:
    torch.manual_seed(0)
    model = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=24, text_dim=32, freq_dim=32, ffn_dim=64, num_layers=3
    )
    return cast(nn.Module, model).eval().requires_grad_(requires_grad=False)


def _adapters(transformer: nn.Module, *, targets: Targets | None = None, alpha: float = 3.0) -> AdapterSet:
    network = LoRA(rank=4, alpha=alpha, targets=targets or Targets())
    generator = torch.Generator().manual_seed(0)
    adapters = AdapterSet.create(network, transformer, keys=WAN.keys, layout=WAN.layout, generator=generator)
    return trained(adapters).eval()


@torch.no_grad()
def _output(transformer: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    x, text = torch.randn(1, 16, 1, 4, 4, generator=generator), torch.randn(1, 6, 32, generator=generator)
    result: Tensor = transformer(x, torch.tensor([500.0]), text, return_dict=False)[0]
    return result


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_does_in_diffusers_what_it_does_here(transformer: nn.Module, layout: LayoutName, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="diffusers attaches LoRAs through peft")
    adapters = _adapters(transformer)
    path = adapters.to_file().bind(WAN).save(tmp_path / "lora.safetensors", layout=layout)
    with adapters.attached(transformer):
        live = _output(transformer)
    before = _output(transformer)

    _load_in_diffusers(transformer, path)

    assert not torch.allclose(live, before, atol=1e-2)
    torch.testing.assert_close(_output(transformer), live, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", ["comfy", "diffusers", "peft"])
def test_a_part_of_the_modules_loads_too(transformer: nn.Module, layout: LayoutName, tmp_path: Path) -> None:
    targets = Targets(exclude=(r"blocks\.0\..*", r".*\.ffn\..*"))
    file = _adapters(transformer, targets=targets).to_file().bind(WAN)

    tensors = WanPipeline.lora_state_dict(file.save(tmp_path / "lora.safetensors", layout=layout))

    assert len(tensors) == 2 * len(file.modules) == 2 * 2 * 8


@pytest.mark.parametrize("layout", LAYOUTS)
def test_modules_of_different_ranks_have_their_strength_there(
    transformer: nn.Module, layout: LayoutName, tmp_path: Path
) -> None:
    adapters = _adapters(transformer)
    file = adapters.to_file().bind(WAN).resized(rank={r".*\.q": 1, r".*\.ffn\..*": 3})
    path = file.save(tmp_path / "lora.safetensors", layout=layout)
    with AdapterSet.from_file(file, transformer, keys=WAN.keys).attached(transformer):
        live = _output(transformer)

    _load_in_diffusers(transformer, path)

    assert {weights.rank for weights in file.modules.values()} == {1, 3, 4}
    torch.testing.assert_close(_output(transformer), live, atol=1e-5, rtol=1e-5)


def test_a_dora_does_there_what_it_does_here(transformer: nn.Module, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    network = DoRA(rank=4, alpha=3)
    adapters = AdapterSet.create(network, transformer, keys=WAN.keys, layout=WAN.layout, generator=generator)
    with torch.no_grad():
        for name, parameter in adapters.named_parameters():
            parameter.mul_(1.3) if "magnitude" in name else parameter.normal_(std=0.3, generator=generator)
    path = adapters.eval().to_file().bind(WAN).save(tmp_path / "lora.safetensors", layout="diffusers")
    with adapters.attached(transformer):
        live = _output(transformer)
    before = _output(transformer)

    _load_in_diffusers(transformer, path)

    assert not torch.allclose(live, before, atol=1e-2)
    torch.testing.assert_close(_output(transformer), live, atol=1e-5, rtol=1e-5)


def _load_in_diffusers(transformer: nn.Module, path: Path) -> None:
    cast(Any, transformer).load_lora_adapter(WanPipeline.lora_state_dict(path), adapter_name="theirs")
