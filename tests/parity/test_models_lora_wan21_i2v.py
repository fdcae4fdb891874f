"""From one seed a LoRA gets the reference's initial weights; attached, it gives its outputs and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from musubi.architectures.wan.detect import describe
from musubi.architectures.wan.facts import DitFacts
from musubi.architectures.wan.spec import TEXT_LENGTH, Wan
from musubi.architectures.wan.transformer import empty_transformer
from musubi.networks.adapters import AdapterSet
from musubi.networks.file import LoRAFile
from musubi.networks.keys import flat
from musubi.networks.lora import LoRA
from musubi.weights.checkpoint import open_checkpoint
from musubi.weights.load import load_into
from tests.parity.cases import golden, golden_stems, part

STEMS = golden_stems("models_lora_wan21_i2v")
each_case = pytest.mark.parametrize("stem", STEMS)
WAN = Wan.t2v_14b()


@each_case
def test_models_lora_wan21_i2v_initial_weights_equal_the_reference(stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)

    adapters = _fresh(meta, _base(meta, tmp_path)[0])

    assert [f"lora_unet_{flat(name)}" for name in adapters.names] == meta["module_order"]
    for name, weights in adapters.to_file().modules.items():
        drawn = weights.tensors()
        assert torch.equal(drawn["down"], tensors[f"lora.lora_unet_{flat(name)}.lora_down.weight"]), name
        assert not drawn["up"].any()


@each_case
def test_models_lora_wan21_i2v_outputs_and_gradients_equal_the_reference(stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)
    model, inputs = _base(meta, tmp_path)
    adapters = _fresh(meta, model)
    adapters.load_file(_reference_file(tensors, tmp_path))
    adapters.weight = meta["config"]["multiplier"]

    with adapters.attached(model):
        predicted = _forward(model, inputs)
        loss = (predicted - tensors["in.loss_target"]).square().mean()
        loss.backward()

    assert (predicted - tensors["out.pred"]).abs().max() <= 1e-5
    torch.testing.assert_close(loss.detach(), tensors["out.loss"].squeeze(), rtol=1e-5, atol=0)
    for name, layer in adapters.layers.items():
        for ours, theirs in (("down", "lora_down"), ("up", "lora_up")):
            expected = tensors[f"grad.lora_unet_{name}.{theirs}.weight"]
            found = layer.get_parameter(ours).grad
            assert found is not None
            assert (found - expected).abs().max() <= 1e-4 * expected.abs().max(), f"{name}.{ours}"


@each_case
def test_models_lora_wan21_i2v_file_round_trips_byte_by_byte(stem: str, tmp_path: Path) -> None:
    _, tensors = golden(stem)
    file = _reference_file(tensors, tmp_path)
    wanted = {name: t for name, t in part(tensors, "lora.").items() if ".org_module." not in name}

    written = file.tensors(dtype="as is")

    assert file.layout == "reference"
    assert written.keys() == wanted.keys()
    assert all(
        torch.equal(tensor, wanted[name]) and tensor.dtype == wanted[name].dtype for name, tensor in written.items()
    )


def _base(meta: dict[str, Any], folder: Path) -> tuple[nn.Module, dict[str, Tensor]]:
    base = next(iter(golden_stems(Path(meta["base"]).stem)), None)
    if base is None:
        pytest.skip(f"the golden folder lacks {meta['base']}, which this LoRA is trained on")
    base_meta, tensors = golden(base)
    path = folder / "dit.safetensors"
    save_file(part(tensors, "ckpt."), path, metadata={"wan.num_heads": str(base_meta["config"]["num_heads"])})
    with open_checkpoint(path) as checkpoint:
        model = empty_transformer(DitFacts.of(checkpoint, describe(checkpoint)))
        load_into(model, checkpoint, keys=WAN.keys, device="cpu", dtype=torch.float32)
    return model, part(tensors, "in.")


def _fresh(meta: dict[str, Any], model: nn.Module) -> AdapterSet:
    config = meta["config"]
    generator = torch.Generator().manual_seed(config["torch_seed_before_creation"])
    network = LoRA(rank=config["rank"], alpha=config["alpha"])
    return AdapterSet.create(network, model, keys=WAN.keys, layout=WAN.layout, generator=generator)


def _reference_file(tensors: dict[str, Tensor], folder: Path) -> LoRAFile:
    kept = {name: t for name, t in part(tensors, "lora.").items() if ".org_module." not in name}
    save_file(kept, folder / "lora.safetensors")
    return LoRAFile.load(folder / "lora.safetensors")


def _forward(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    x = torch.cat([inputs["x"], inputs["y"]], dim=1)
    captions = [inputs[f"context_{i}"] for i in range(len(x))]
    predicted: Tensor = model(
        x,
        inputs["t"],
        torch.stack([functional.pad(text, (0, 0, 0, TEXT_LENGTH - len(text))) for text in captions]),
        encoder_hidden_states_image=inputs["clip_fea"],
        return_dict=False,
    )[0]
    return predicted
