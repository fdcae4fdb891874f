"""One adapter of a fused original module over diffusers' separate Linears: the same delta, and the same file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from musubi import HunyuanVideo, LoHa, LoKr, LoRA, LoRAFile, Targets
from musubi.architectures.hunyuan_video.keys import DIT
from musubi.core.errors import WeightsError
from musubi.networks.adapters import AdapterSet
from musubi.networks.keys import LAYOUTS, LayoutName
from musubi.networks.network import AdapterNetwork
from tests.architectures.hunyuan_video.golden import load, predict, write
from tests.parity.cases import golden, part

STEM = "models_hunyuan"
SPEC = HunyuanVideo.t2v()
EVERYTHING = Targets(preset="with_modulation", include=(r"final_layer\..*", r"txt_in\.individual_token_refiner\..*"))
NETWORKS = [
    pytest.param(LoRA(rank=4, alpha=2.0, targets=EVERYTHING), id="lora"),
    pytest.param(LoHa(rank=4, targets=EVERYTHING), id="loha"),
    pytest.param(LoKr(rank=2, targets=EVERYTHING), id="lokr"),
    pytest.param(LoKr(rank=64, factor=4, targets=EVERYTHING), id="lokr, whole matrices"),
]
each_network = pytest.mark.parametrize("network", NETWORKS)


@each_network
def test_it_gives_what_its_delta_in_the_fused_checkpoint_gives(network: AdapterNetwork, tmp_path: Path) -> None:
    model, inputs = load(write(STEM, tmp_path)), part(golden(STEM)[1], "in.")
    adapters = _random(network, model)
    checkpoint = part(golden(STEM)[1], "ckpt.")
    deltas = {f"{name}.weight": weights.delta() for name, weights in adapters.to_file().modules.items()}

    dense = load(write(STEM, tmp_path, changes={name: checkpoint[name] + delta for name, delta in deltas.items()}))

    assert any("qkv" in name for name in deltas)
    with torch.no_grad():
        bare, expected = predict(model, inputs), predict(dense, inputs)
        with adapters.attached(model):
            assert (predict(model, inputs) - expected).abs().max() <= 1e-5
    assert (bare - expected).abs().max() > 1e-2


@each_network
def test_its_gradients_are_those_through_the_fused_weight(network: AdapterNetwork, tmp_path: Path) -> None:
    model, inputs = load(write(STEM, tmp_path)), part(golden(STEM)[1], "in.")
    adapters = _random(network, model)
    model.requires_grad_(requires_grad=True)

    with adapters.attached(model):
        (predict(model, inputs) - inputs["loss_target"]).square().mean().backward()

    for name, weights in adapters.to_file().modules.items():
        fused = torch.cat([_gradient(model, piece.name) for piece in DIT.to_library(f"{name}.weight")])
        traced = weights.replaced(lambda tensor: tensor.requires_grad_())
        traced.delta().backward(fused)
        layer = adapters.layers[name.replace(".", "_")]
        for role, parameter in layer.named_parameters():
            expected = traced.tensors()[role].grad
            assert parameter.grad is not None
            assert expected is not None
            assert (parameter.grad - expected).abs().max() <= 1e-4 * expected.abs().max(), f"{name}.{role}"


@each_network
@pytest.mark.parametrize("layout", LAYOUTS)
def test_its_file_comes_back_whole_in_every_layout(network: AdapterNetwork, layout: LayoutName, tmp_path: Path) -> None:
    adapters = _random(network, load(write(STEM, tmp_path)))
    file = adapters.to_file().bind(SPEC)
    path = tmp_path / "lora.safetensors"

    if LAYOUTS[layout].library and not isinstance(network, LoRA):
        with pytest.raises(WeightsError, match="cannot be cut"):
            file.save(path, layout=layout)
        return
    again = LoRAFile.load(file.save(path, layout=layout), SPEC)

    assert again.names == file.names == adapters.names
    for name, weights in file.modules.items():
        assert torch.equal(weights.delta(), again.modules[name].delta()), name
        if LAYOUTS[layout].alpha:
            tensors = again.modules[name].tensors()
            assert all(torch.equal(value, tensors[role]) for role, value in weights.tensors().items())


def test_diffusers_has_the_halves_of_the_last_modulation_the_other_way_round(tmp_path: Path) -> None:
    name = "final_layer.adaLN_modulation.1"
    network = LoRA(rank=2, targets=Targets(exclude=(".*",), include=(name.replace(".", r"\."),)))
    file = _random(network, load(write(STEM, tmp_path))).to_file().bind(SPEC)

    tensors = file.tensors("diffusers")

    shift, scale = file.tensors("peft")[f"diffusion_model.{name}.lora_B.weight"].chunk(2)
    assert torch.equal(tensors["transformer.norm_out.linear.lora_B.weight"], torch.cat([scale, shift]))


def _random(network: AdapterNetwork, model: nn.Module) -> AdapterSet:
    """Return adapters with an effect of some size."""
    generator = torch.Generator().manual_seed(7)
    adapters = AdapterSet.create(network, model, keys=SPEC.keys, layout=SPEC.layout, generator=generator)
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter.normal_(std=0.15, generator=generator)
    return adapters


def _gradient(model: nn.Module, name: str) -> Tensor:
    found = model.get_parameter(name).grad
    assert found is not None, name
    return found
