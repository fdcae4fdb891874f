"""Base weights with a LoRA merged into them while they are loaded, and quantised after that, beside the reference's.

Merging a float32 LoRA turns the reference's bfloat16 weight into float32, and so its scales (a defect of its: the
weight is then dequantised in float32). Ours keeps the weight's type. So the merged weight is compared within a unit of
bfloat16; the stored bits where both quantise the same numbers, the reference's own float32 sum; and of what ours stores
it is shown that it is the same quantisation of ours, no further from the merged weight than the reference's.
"""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from musubi.architecture import WeightHook
from musubi.architectures.wan.spec import Wan
from musubi.keymap import KeyMap
from musubi.memory import fp8
from musubi.memory.policy import weight_hook
from musubi.memory.quantise import FP8Scaled, quantises
from musubi.networks.file import LoRAFile
from musubi.networks.merge import Merge
from musubi.networks.weights import LoRAWeights
from musubi.weights.checkpoint import open_checkpoint
from musubi.weights.load import load_into
from tests.parity import cases

STEMS = sorted(path.stem for path in cases.vectors_folder().glob("mem_fp8_lora_merge*.safetensors"))
LAYOUT = Wan.t2v_14b().layout
each_file = pytest.mark.parametrize("stem", STEMS)


@attrs.frozen
class Known:
    """A file of the reference's results."""

    multiplier: float
    base: dict[str, Tensor]
    lora: dict[str, Tensor]
    merged: dict[str, Tensor]
    fp8: dict[str, Tensor]

    @classmethod
    def of(cls, stem: str) -> Known:
        path = cases.vectors_folder() / f"{stem}.safetensors"
        with safe_open(path, framework="pt") as file:
            multiplier = float(file.metadata()["multiplier"])
        tensors = load_file(path)
        return cls(multiplier, *(cases.part(tensors, f"{part}/") for part in ("base", "lora", "merged", "fp8")))

    @property
    def quantised(self) -> list[str]:
        return [name.replace(".scale_weight", ".weight") for name in self.fp8 if name.endswith(".scale_weight")]

    def adapter(self, weight: str) -> LoRAWeights | None:
        name = f"lora_unet_{weight.removesuffix('.weight').replace('.', '_')}"
        if f"{name}.lora_down.weight" not in self.lora:
            return None
        down, up = (self.lora[f"{name}.lora_{part}.weight"] for part in ("down", "up"))
        return LoRAWeights(down, up, self.lora.get(f"{name}.alpha", torch.tensor(float(len(down)))))

    def merge(self) -> Merge:
        modules = {name.removesuffix(".weight"): found for name in self.base if (found := self.adapter(name))}
        return Merge(((LoRAFile(modules=modules), self.multiplier),))

    def float_sum(self, name: str) -> Tensor:
        """Return a weight and its adapter added as the reference does it, in float32."""
        found = self.adapter(name)
        if found is None:
            return self.base[name]
        scale = found.alpha / len(found.down)
        return self.base[name] + self.multiplier * (found.up @ found.down) * scale


@each_file
def test_mem_fp8_lora_merge_merged_weights_are_the_references(stem: str, tmp_path: Path) -> None:
    known = Known.of(stem)
    merge = known.merge()

    found = _loaded(known, merge, tmp_path)

    merge.check()
    assert found.keys() == known.merged.keys()
    for name, tensor in found.items():
        assert tensor.dtype == known.base[name].dtype
        assert _within_an_ulp(tensor, known.merged[name]), name


@each_file
def test_mem_fp8_lora_merge_stores_the_references_bits_of_the_references_sum(stem: str) -> None:
    known = Known.of(stem)

    assert known.quantised == [name for name in known.base if quantises(name, LAYOUT) and known.base[name].ndim == 2]
    for name in known.quantised:
        stored, scale = fp8.quantise(known.float_sum(name))
        assert torch.equal(stored.view(torch.uint8), known.fp8[name].view(torch.uint8)), name
        assert torch.equal(scale, known.fp8[name.replace(".weight", ".scale_weight")]), name


@each_file
def test_mem_fp8_lora_merge_quantises_what_was_merged_in_the_weights_own_type(stem: str, tmp_path: Path) -> None:
    known = Known.of(stem)
    hook = weight_hook((FP8Scaled(),), keys=KeyMap(()), layout=LAYOUT, before=[known.merge()])

    found = _loaded(known, hook, tmp_path)

    merged = _loaded(known, known.merge(), tmp_path)
    for name in known.quantised:
        stored, scale = found[name], found[name.replace(".weight", ".scale")]
        theirs = fp8.dequantise(known.fp8[name].view(torch.float8_e4m3fn), known.fp8[f"{name[:-7]}.scale_weight"])
        assert scale.dtype == known.base[name].dtype
        assert all(map(torch.equal, _as_bits(stored, scale), _as_bits(*fp8.quantise(merged[name]))))
        assert _distance(fp8.dequantise(stored, scale.float()), known, name) <= 1.01 * _distance(theirs, known, name)


def _loaded(known: Known, hook: WeightHook | None, folder: Path) -> dict[str, Tensor]:
    """Return the weights of a module of the base's names, loaded through a hook."""
    save_file(known.base, folder / "base.safetensors")
    model = nn.Module()
    with init_empty_weights():
        for name, tensor in known.base.items():
            *path, leaf = name.split(".")
            owner = model
            for part in path:
                if not hasattr(owner, part):
                    owner.add_module(part, nn.Module())
                owner = owner.get_submodule(part)
            owner.register_parameter(leaf, nn.Parameter(torch.empty_like(tensor), requires_grad=False))
    with open_checkpoint(folder / "base.safetensors") as checkpoint:
        load_into(model, checkpoint, keys=KeyMap(()), device="cpu", dtype=torch.bfloat16, on_weight=hook)
    return model.state_dict()


def _as_bits(stored: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    return stored.view(torch.uint8), scale


def _distance(weight: Tensor, known: Known, name: str) -> float:
    return float((weight.float() - known.float_sum(name).float()).norm())


def _within_an_ulp(found: Tensor, expected: Tensor) -> bool:
    steps = (_ordered(found.bfloat16()) - _ordered(expected.bfloat16())).abs()
    return found.shape == expected.shape and bool((steps <= 1).all())


def _ordered(tensor: Tensor) -> Tensor:
    """Return 16-bit floats as whole numbers in the same order, neighbours one apart."""
    bits = tensor.contiguous().view(torch.int16).int()
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)
