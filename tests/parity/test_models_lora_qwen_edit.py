"""From one seed a LoRA gets the reference's initial weights; attached, it gives its outputs and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.testing import assert_close

from musubi import LoRA, LoRAFile, QwenImage
from musubi.networks.adapters import AdapterSet
from musubi.networks.keys import flat
from tests.architectures.qwen_image.golden import load, predict, write
from tests.parity.cases import golden, golden_stems, part

STEMS = golden_stems("models_lora_qwen_edit")
each_case = pytest.mark.parametrize("stem", STEMS)
SPEC = QwenImage.edit()


@each_case
def test_models_lora_qwen_edit_initial_weights_equal_the_reference(stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)

    adapters = _fresh(meta, _base(meta, tmp_path)[0])

    assert [f"lora_unet_{flat(name)}" for name in adapters.names] == meta["module_order"]
    for name, weights in adapters.to_file().tensors("reference").items():
        if name.endswith(".lora_down.weight"):
            assert torch.equal(weights, tensors[f"init.{name}"]), name
        elif name.endswith(".lora_up.weight"):
            assert not weights.any()


@each_case
def test_models_lora_qwen_edit_outputs_and_gradients_equal_the_reference(stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)
    model, inputs = _base(meta, tmp_path)
    adapters = _fresh(meta, model)
    adapters.load_file(_reference_file(tensors, tmp_path))

    with adapters.attached(model):
        predicted = predict(model, inputs)
        loss = (predicted - inputs["target"]).square().mean()
        loss.backward()

    assert (predicted - tensors["out.pred"]).abs().max() <= 1e-5
    assert_close(loss.detach(), tensors["out.loss"], rtol=1e-5, atol=0)
    idle = set(meta.get("no_gradient", ()))
    for name, layer in adapters.layers.items():
        for ours, theirs in (("down", "lora_down"), ("up", "lora_up")):
            found = layer.get_parameter(ours).grad
            if f"lora_unet_{name}" in idle:
                assert found is None or not found.any(), f"{name}.{ours}"
                continue
            expected = tensors[f"grad.lora_unet_{name}.{theirs}.weight"]
            assert found is not None
            assert (found - expected).abs().max() <= 1e-4 * expected.abs().max(), f"{name}.{ours}"


@each_case
def test_models_lora_qwen_edit_weights_merged_while_loading_give_the_same(stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)
    model, inputs = _base(meta, tmp_path)
    file = _reference_file(tensors, tmp_path)

    merged = load(tmp_path / "dit.safetensors", on_weight=file.merge_hook())

    with torch.no_grad():
        assert (predict(merged, inputs) - tensors["out.pred"]).abs().max() <= 1e-5
        assert (predict(model, inputs) - tensors["out.pred"]).abs().max() > 1e-3


@each_case
def test_models_lora_qwen_edit_file_is_saved_again_bit_by_bit(stem: str, tmp_path: Path) -> None:
    _, tensors = golden(stem)
    wanted = part(tensors, "lora.")

    file = _reference_file(tensors, tmp_path)
    file.save(tmp_path / "again.safetensors", layout="reference", dtype="as is")

    written = load_file(tmp_path / "again.safetensors")
    assert file.layout == "reference"
    assert written.keys() == wanted.keys()
    assert all(torch.equal(value, wanted[n]) and value.dtype == wanted[n].dtype for n, value in written.items())


def _base(meta: dict[str, Any], folder: Path) -> tuple[nn.Module, dict[str, Tensor]]:
    base = next(iter(golden_stems(Path(meta["base"]).stem)), None)
    if base is None:
        pytest.skip(f"the golden folder lacks {meta['base']}, which this LoRA is trained on")
    return load(write(base, folder)), part(golden(base)[1], "in.")


def _fresh(meta: dict[str, Any], model: nn.Module) -> AdapterSet:
    config = meta["config"]
    generator = torch.Generator().manual_seed(config["torch_seed_before_creation"])
    network = LoRA(rank=config["rank"], alpha=config["alpha"])
    return AdapterSet.create(network, model, keys=SPEC.keys, layout=SPEC.layout, generator=generator)


def _reference_file(tensors: dict[str, Tensor], folder: Path) -> LoRAFile:
    save_file(part(tensors, "lora."), folder / "lora.safetensors")
    return LoRAFile.load(folder / "lora.safetensors")
