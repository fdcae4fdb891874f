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
from musubi.networks.file import LoRAFile
from musubi.networks.keys import LAYOUTS, LayoutName
from musubi.networks.lora import LoRA
from musubi.networks.network import Targets
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
    path = adapters.to_file().save(tmp_path / "lora.safetensors", layout=layout)
    with adapters.attached(transformer):
        live = _output(transformer)
    before = _output(transformer)

    _load_in_diffusers(transformer, path)

    assert not torch.allclose(live, before, atol=1e-2)
    torch.testing.assert_close(_output(transformer), live, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", ["comfy", "diffusers"])
def test_a_part_of_the_modules_loads_too(transformer: nn.Module, layout: LayoutName, tmp_path: Path) -> None:
    targets = Targets(exclude=(r"blocks\.0\..*", r".*\.ffn\..*"))
    file = _adapters(transformer, targets=targets).to_file()

    tensors = WanPipeline.lora_state_dict(file.save(tmp_path / "lora.safetensors", layout=layout))

    assert len(tensors) == 2 * len(file.modules) == 2 * 2 * 8


@pytest.fixture(scope="module")
def full_size() -> tuple[LoRAFile, set[str]]:
    """Return a LoRA of a published size at rank 1, and the names of the model's Linears."""
    with torch.device("meta"):
        model = cast(nn.Module, WanTransformer3DModel(num_layers=40))
    adapters = AdapterSet.create(
        LoRA(rank=1, alpha=1), model, keys=WAN.keys, layout=WAN.layout, generator=torch.Generator()
    )
    return adapters.to_file(), {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_module_of_a_published_size_is_recognised(
    full_size: tuple[LoRAFile, set[str]], layout: LayoutName, tmp_path: Path
) -> None:
    file, linears = full_size

    tensors = WanPipeline.lora_state_dict(file.save(tmp_path / "lora.safetensors", layout=layout))

    found = {name.removeprefix("transformer.").rpartition(".lora_")[0] for name in tensors}
    assert len(found) == len(file.modules) == 400
    assert found <= linears


def _load_in_diffusers(transformer: nn.Module, path: Path) -> None:
    cast(Any, transformer).load_lora_adapter(WanPipeline.lora_state_dict(path), adapter_name="theirs")
