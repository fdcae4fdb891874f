"""From one seed a LoRA gets the reference's initial weights, and gives its outputs and gradients; in every family.

Cases are ``models_lora_<family>``, but for Wan's, which are in ``test_models_lora_wan21_i2v.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.testing import assert_close

from musubi import LoRA, LoRAFile
from musubi.networks.adapters import AdapterSet
from musubi.networks.keys import flat
from tests.architectures.families import FAMILIES, Family
from tests.parity.cases import golden, golden_stems, part

CASES = {stem: (family, stem) for name, family in FAMILIES.items() for stem in golden_stems(f"models_lora_{name}")}
each_case = pytest.mark.parametrize(("family", "stem"), CASES.values(), ids=CASES)


@each_case
def test_models_lora_initial_weights_equal_the_reference(family: Family, stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)
    drawn = part(tensors, "init.") or part(tensors, "lora.")

    adapters = _fresh(family, meta, _base(family, meta, tmp_path)[0])

    assert [f"lora_unet_{flat(name)}" for name in adapters.names] == meta["module_order"]
    for name, weights in adapters.to_file().tensors("reference").items():
        if name.endswith(".lora_down.weight"):
            assert torch.equal(weights, drawn[name]), name
        elif name.endswith(".lora_up.weight"):
            assert not weights.any()


@each_case
def test_models_lora_outputs_and_gradients_equal_the_reference(family: Family, stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)
    model, inputs = _base(family, meta, tmp_path)
    adapters = _fresh(family, meta, model)
    adapters.load_file(_reference_file(tensors, tmp_path))
    adapters.weight = meta["config"].get("multiplier", 1.0)

    with adapters.attached(model):
        predicted = family.predict(model, inputs)
        loss = (predicted - _target(tensors, inputs)).square().mean()
        loss.backward()

    assert (predicted - tensors["out.pred"]).abs().max() <= 1e-5
    assert_close(loss.detach(), tensors["out.loss"].squeeze(), rtol=1e-5, atol=0)
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
def test_models_lora_weights_merged_while_loading_give_the_same(family: Family, stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)
    model, inputs = _base(family, meta, tmp_path)
    file = _reference_file(tensors, tmp_path)

    merged = family.load(tmp_path / "dit.safetensors", on_weight=file.merge_hook())

    with torch.no_grad():
        assert (family.predict(merged, inputs) - tensors["out.pred"]).abs().max() <= 1e-5
        assert (family.predict(model, inputs) - tensors["out.pred"]).abs().max() > 1e-3


@each_case
def test_models_lora_file_decides_modules_ranks_and_strengths(family: Family, stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)
    model, inputs = _base(family, meta, tmp_path)

    adapters = AdapterSet.from_file(_reference_file(tensors, tmp_path), model, keys=family.spec.keys)
    with torch.no_grad(), adapters.attached(model):
        predicted = family.predict(model, inputs)

    assert (predicted - tensors["out.pred"]).abs().max() <= 1e-5


@each_case
def test_models_lora_file_is_saved_again_bit_by_bit(family: Family, stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)
    wanted = _content(tensors)

    file = _reference_file(tensors, tmp_path)
    adapters = AdapterSet.from_file(file, _base(family, meta, tmp_path)[0], keys=family.spec.keys)

    assert file.layout == "reference"
    for number, saved in enumerate((file, adapters.to_file())):
        written = load_file(saved.save(tmp_path / f"again{number}.safetensors", layout="reference", dtype="as is"))
        assert written.keys() == wanted.keys()
        assert all(torch.equal(value, wanted[n]) and value.dtype == wanted[n].dtype for n, value in written.items())


def _base(family: Family, meta: dict[str, Any], folder: Path) -> tuple[nn.Module, dict[str, Tensor]]:
    stem = Path(meta["base"]).stem
    base = next((found for found in family.transformers() if found.startswith(stem)), None)
    if base is None:
        pytest.skip(f"the golden folder lacks {meta['base']}, which this LoRA is trained on")
    return family.load(family.write(base, folder)), family.inputs(base)


def _fresh(family: Family, meta: dict[str, Any], model: nn.Module) -> AdapterSet:
    config = meta["config"]
    generator = torch.Generator().manual_seed(config["torch_seed_before_creation"])
    network = LoRA(rank=config["rank"], alpha=config["alpha"])
    return AdapterSet.create(network, model, keys=family.spec.keys, layout=family.spec.layout, generator=generator)


def _target(tensors: dict[str, Tensor], inputs: dict[str, Tensor]) -> Tensor:
    return tensors["in.loss_target"] if "in.loss_target" in tensors else inputs["target"]


def _content(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the LoRA without the base's own tensors, which stand beside it."""
    return {name: tensor for name, tensor in part(tensors, "lora.").items() if ".org_module." not in name}


def _reference_file(tensors: dict[str, Tensor], folder: Path) -> LoRAFile:
    save_file(_content(tensors), folder / "lora.safetensors")
    return LoRAFile.load(folder / "lora.safetensors")
