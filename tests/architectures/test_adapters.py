"""Adapters of every kind and family: the same delta as in the original checkpoint, and the same file.

Some original modules are several Linears in diffusers' class; one adapter spans these.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from musubi import LoHa, LoKr, LoRA, LoRAFile
from musubi.core.errors import WeightsError
from musubi.networks.adapters import AdapterSet
from musubi.networks.keys import LAYOUTS, LayoutName
from musubi.networks.network import AdapterNetwork
from musubi.networks.targets import Targets
from tests.architectures.families import FAMILIES, Family

NETWORKS = {
    "lora": LoRA(rank=4, alpha=2.0),
    "loha": LoHa(rank=4),
    "lokr": LoKr(rank=2),
    "lokr, whole matrices": LoKr(rank=64, factor=4),
}
each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
each_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)


@each_family
@each_network
def test_it_gives_what_its_delta_in_the_checkpoint_gives(
    family: Family, network: AdapterNetwork, tmp_path: Path
) -> None:
    model, inputs, checkpoint = _tiny(family, tmp_path), family.inputs(family.stem), family.checkpoint()
    adapters = _random(family, network, model)
    changes = {
        f"{name}.weight": checkpoint[f"{name}.weight"] + weights.delta()
        for name, weights in adapters.to_file().modules.items()
    }

    dense = family.load(family.write(family.stem, tmp_path, changes=changes))

    with torch.no_grad():
        bare, expected = family.predict(model, inputs), family.predict(dense, inputs)
        with adapters.attached(model):
            assert (family.predict(model, inputs) - expected).abs().max() <= 1e-5
    assert (bare - expected).abs().max() > 1e-2


@each_family
@each_network
def test_its_gradients_are_those_through_the_original_weight(
    family: Family, network: AdapterNetwork, tmp_path: Path
) -> None:
    model = _tiny(family, tmp_path)
    adapters = _random(family, network, model)
    model.requires_grad_(requires_grad=True)

    with adapters.attached(model):
        family.predict(model, family.inputs(family.stem)).square().mean().backward()

    for name, weights in adapters.to_file().modules.items():
        parts = family.spec.keys.to_library(f"{name}.weight")
        traced = weights.replaced(lambda tensor: tensor.requires_grad_())
        traced.delta().backward(torch.cat([_gradient(model.get_parameter(piece.name)) for piece in parts]))
        for role, parameter in adapters.layers[name.replace(".", "_")].named_parameters():
            expected = _gradient(traced.tensors()[role])
            assert (_gradient(parameter) - expected).abs().max() <= 1e-4 * expected.abs().max(), f"{name}.{role}"


@each_family
@each_network
@pytest.mark.parametrize("layout", LAYOUTS)
def test_its_file_comes_back_whole_in_every_layout(
    family: Family, network: AdapterNetwork, layout: LayoutName, tmp_path: Path
) -> None:
    adapters = _random(family, network, _tiny(family, tmp_path))
    file = adapters.to_file().bind(family.spec)
    path = tmp_path / "lora.safetensors"

    if LAYOUTS[layout].library and not isinstance(network, LoRA) and _fused(family, file):
        with pytest.raises(WeightsError, match="cannot be cut"):
            file.save(path, layout=layout)
        return
    again = LoRAFile.load(file.save(path, layout=layout), family.spec)

    assert again.names == file.names == adapters.names
    for name, weights in file.modules.items():
        assert torch.equal(weights.delta(), again.modules[name].delta()), name
        if LAYOUTS[layout].alpha:
            tensors = again.modules[name].tensors()
            assert all(torch.equal(value, tensors[role]) for role, value in weights.tensors().items())


@pytest.mark.parametrize("family", [FAMILIES["hunyuan"], FAMILIES["flux_kontext"]], ids=["hunyuan", "flux_kontext"])
def test_diffusers_has_the_halves_of_the_last_modulation_the_other_way_round(family: Family, tmp_path: Path) -> None:
    name = "final_layer.adaLN_modulation.1"
    targets = Targets(exclude=(".*",), include=(name.replace(".", r"\."),))
    file = _random(family, LoRA(rank=2), _tiny(family, tmp_path), targets).to_file().bind(family.spec)

    tensors = file.tensors("diffusers")

    shift, scale = file.tensors("peft")[f"diffusion_model.{name}.lora_B.weight"].chunk(2)
    assert torch.equal(tensors["transformer.norm_out.linear.lora_B.weight"], torch.cat([scale, shift]))


def _tiny(family: Family, folder: Path) -> nn.Module:
    return family.load(family.write(family.stem, folder))


def _random(family: Family, network: AdapterNetwork, model: nn.Module, targets: Targets | None = None) -> AdapterSet:
    """Return adapters of the family's targets, or of others, with an effect of some size."""
    generator, spec = torch.Generator().manual_seed(7), family.spec
    network = network.replace(targets=targets or family.targets)
    adapters = AdapterSet.create(network, model, keys=spec.keys, layout=spec.layout, generator=generator)
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter.normal_(std=0.15, generator=generator)
    return adapters


def _fused(family: Family, file: LoRAFile) -> bool:
    return any(len(family.spec.keys.to_library(name)) > 1 for name in file.names)


def _gradient(tensor: Tensor) -> Tensor:
    """Return the gradient; zeros for what the prediction does not depend on."""
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
