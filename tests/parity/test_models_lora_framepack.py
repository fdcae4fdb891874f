"""From one seed a LoRA gets the reference's initial weights; attached, it gives its outputs and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.testing import assert_close

from musubi import FramePack, LoRA, LoRAFile
from musubi.networks.adapters import AdapterSet
from musubi.networks.keys import flat
from tests.architectures.framepack.golden import as_recorded, calls, load, predict, stems, write
from tests.parity.cases import golden, golden_stems, part

STEMS = golden_stems("models_lora_framepack")
each_case = pytest.mark.parametrize("stem", STEMS)
SPEC = FramePack.inverted()


@each_case
def test_models_lora_framepack_initial_weights_equal_the_reference(stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)

    adapters = _fresh(meta, _base(meta, tmp_path)[0])

    assert [f"lora_unet_{flat(name)}" for name in adapters.names] == meta["module_order"]
    for name, weights in adapters.to_file().tensors("reference").items():
        if name.endswith(".lora_down.weight"):
            assert torch.equal(weights, tensors[f"lora.{name}"]), name
        elif name.endswith(".lora_up.weight"):
            assert not weights.any()


@each_case
def test_models_lora_framepack_outputs_and_gradients_equal_the_reference(stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)
    model, inputs = _base(meta, tmp_path)
    adapters = _fresh(meta, model)
    adapters.load_file(_reference_file(tensors, tmp_path))
    adapters.weight = meta["config"]["multiplier"]

    with adapters.attached(model):
        predicted = predict(model, inputs)
        loss = (predicted - tensors["in.loss_target"]).square().mean()
        loss.backward()

    assert (predicted - tensors["out.pred"]).abs().max() <= 1e-5
    assert_close(loss.detach(), tensors["out.loss"].squeeze(), rtol=1e-5, atol=0)
    for name, layer in adapters.layers.items():
        for ours, theirs in (("down", "lora_down"), ("up", "lora_up")):
            expected = tensors[f"grad.lora_unet_{name}.{theirs}.weight"]
            found = layer.get_parameter(ours).grad
            assert found is not None
            assert (found - expected).abs().max() <= 1e-4 * expected.abs().max(), f"{name}.{ours}"


@each_case
def test_models_lora_framepack_weights_merged_while_loading_give_the_same(stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)
    model, inputs = _base(meta, tmp_path)
    file = _reference_file(tensors, tmp_path)

    merged = as_recorded(load(tmp_path / "dit.safetensors", on_weight=file.merge_hook()))

    with torch.no_grad():
        assert (predict(merged, inputs) - tensors["out.pred"]).abs().max() <= 1e-5
        assert (predict(model, inputs) - tensors["out.pred"]).abs().max() > 1e-3


@each_case
def test_models_lora_framepack_file_decides_modules_ranks_and_strengths(stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)
    model, inputs = _base(meta, tmp_path)

    adapters = AdapterSet.from_file(_reference_file(tensors, tmp_path), model, keys=SPEC.keys)
    with torch.no_grad(), adapters.attached(model):
        predicted = predict(model, inputs)

    assert (predicted - tensors["out.pred"]).abs().max() <= 1e-5


@each_case
def test_models_lora_framepack_file_is_saved_again_bit_by_bit(stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)
    wanted = _content(tensors)

    file = _reference_file(tensors, tmp_path)
    adapters = AdapterSet.from_file(file, _base(meta, tmp_path)[0], keys=SPEC.keys)

    assert file.layout == "reference"
    for number, saved in enumerate((file, adapters.to_file())):
        written = load_file(saved.save(tmp_path / f"again{number}.safetensors", layout="reference", dtype="as is"))
        assert written.keys() == wanted.keys()
        assert all(torch.equal(value, wanted[n]) and value.dtype == wanted[n].dtype for n, value in written.items())


def _base(meta: dict[str, Any], folder: Path) -> tuple[nn.Module, dict[str, Tensor]]:
    stem = Path(meta["base"]).stem
    base = next((found for found in stems() if found.startswith(stem)), None)
    if base is None:
        pytest.skip(f"the golden folder lacks {meta['base']}, which this LoRA is trained on")
    tensors = golden(base)[1]
    return as_recorded(load(write(base, folder))), calls(tensors)["vanilla"]


def _fresh(meta: dict[str, Any], model: nn.Module) -> AdapterSet:
    config = meta["config"]
    generator = torch.Generator().manual_seed(config["torch_seed_before_creation"])
    network = LoRA(rank=config["rank"], alpha=config["alpha"])
    return AdapterSet.create(network, model, keys=SPEC.keys, layout=SPEC.layout, generator=generator)


def _content(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the LoRA without the base's own tensors, which stand beside it."""
    return {name: tensor for name, tensor in part(tensors, "lora.").items() if ".org_module." not in name}


def _reference_file(tensors: dict[str, Tensor], folder: Path) -> LoRAFile:
    save_file(_content(tensors), folder / "lora.safetensors")
    return LoRAFile.load(folder / "lora.safetensors")
