"""Adapters of every kind beside diffusers' Linears: the same as their delta in the checkpoint, and the same file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from musubi import FramePack, LoHa, LoKr, LoRA, LoRAFile, Targets
from musubi.networks.adapters import AdapterSet
from musubi.networks.keys import LAYOUTS, LayoutName
from musubi.networks.network import AdapterNetwork
from tests.architectures.framepack.golden import calls, load, predict, write
from tests.parity.cases import golden, part

STEM = "models_framepack"
SPEC = FramePack.inverted()
EVERYTHING = Targets(preset="with_modulation", include=(r"norm_out\.linear", r"context_embedder\.token_refiner\..*"))
NETWORKS = [
    pytest.param(LoRA(rank=4, alpha=2.0, targets=EVERYTHING), id="lora"),
    pytest.param(LoHa(rank=4, targets=EVERYTHING), id="loha"),
    pytest.param(LoKr(rank=2, targets=EVERYTHING), id="lokr"),
]
each_network = pytest.mark.parametrize("network", NETWORKS)


@each_network
def test_it_gives_what_its_delta_in_the_checkpoint_gives(network: AdapterNetwork, tmp_path: Path) -> None:
    model, inputs = load(write(STEM, tmp_path)), calls(golden(STEM)[1])["vanilla"]
    adapters = _random(network, model)
    checkpoint = part(golden(STEM)[1], "ckpt.")
    deltas = {f"{name}.weight": weights.delta() for name, weights in adapters.to_file().modules.items()}

    dense = load(write(STEM, tmp_path, changes={name: checkpoint[name] + delta for name, delta in deltas.items()}))

    with torch.no_grad():
        bare, expected = predict(model, inputs), predict(dense, inputs)
        with adapters.attached(model):
            assert (predict(model, inputs) - expected).abs().max() <= 1e-5
    assert (bare - expected).abs().max() > 1e-2


@each_network
@pytest.mark.parametrize("layout", LAYOUTS)
def test_its_file_comes_back_whole_in_every_layout(network: AdapterNetwork, layout: LayoutName, tmp_path: Path) -> None:
    file = _random(network, load(write(STEM, tmp_path))).to_file().bind(SPEC)

    again = LoRAFile.load(file.save(tmp_path / "lora.safetensors", layout=layout), SPEC)

    assert again.names == file.names
    for name, weights in file.modules.items():
        assert torch.equal(weights.delta(), again.modules[name].delta()), name
        if LAYOUTS[layout].alpha:
            tensors = again.modules[name].tensors()
            assert all(torch.equal(value, tensors[role]) for role, value in weights.tensors().items())


def _random(network: AdapterNetwork, model: nn.Module) -> AdapterSet:
    """Return adapters with an effect of some size."""
    generator = torch.Generator().manual_seed(7)
    adapters = AdapterSet.create(network, model, keys=SPEC.keys, layout=SPEC.layout, generator=generator)
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter.normal_(std=0.15, generator=generator)
    return adapters
