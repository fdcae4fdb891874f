from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from accelerate import init_empty_weights
from safetensors.torch import save_file
from torch import Tensor, nn

from musubi.architecture import Layout, WeightHook
from musubi.core.errors import WeightsError
from musubi.keymap import KeyMap, Rename
from musubi.memory.as_stored import AsStored
from musubi.memory.policy import weight_hook
from musubi.memory.quant_linear import QuantLinear
from musubi.memory.quantise import FP8Scaled
from musubi.weights.checkpoint import open_checkpoint
from musubi.weights.load import load_into
from musubi.weights.stored import stored_weights

KEYS = KeyMap((Rename("attn.qkv", ("q", "k", "v")),))
LAYOUT = Layout(blocks=(), adapters=(), quantise=(r"attn\..*",))
ROWS = {"q": 6, "k": 2, "v": 2}
FORMS = {"none": None, "scalar": (), "one": (1,), "rows": (10,), "column": (10, 1), "blocks": (10, 2, 1)}
PREFIX = "model.diffusion_model."


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, rows) for rows in ROWS.values())
        self.head = nn.Linear(8, 4)


def _tensors(form: str, *, dtype: torch.dtype = torch.float8_e4m3fn, name: str = "scale_weight") -> dict[str, Tensor]:
    """Return the tensors of a file whose fused matrix has scales of a form; the head is cast to 8 bits."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "attn.qkv.weight": (torch.randn(10, 8, generator=generator) * 20).to(dtype),
        "attn.qkv.bias": torch.randn(10, generator=generator).bfloat16(),
        "head.weight": torch.randn(4, 8, generator=generator).to(torch.float8_e4m3fn),
        "head.bias": torch.randn(4, generator=generator).to(torch.float8_e5m2),
    }
    shape = FORMS[form]
    if shape is not None:
        tensors[f"attn.qkv.{name}"] = torch.rand(shape, generator=generator) + 0.5
        tensors["attn.qkv.scale_input"] = torch.ones(())
        tensors["scaled_fp8"] = torch.empty(2, dtype=torch.float8_e4m3fn)
    return tensors


def _in_parts(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the same under the library's names: the fused matrix in three, each with scales of its own."""
    parts: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        fused, _, leaf = name.rpartition(".")
        split = tensor.split(list(ROWS.values())) if tensor.ndim and len(tensor) == 10 else [tensor] * 3
        parts |= {f"{part}.{leaf}": rows.clone() for part, rows in zip(ROWS, split, strict=True) if fused == "attn.qkv"}
    return {**{name: tensor for name, tensor in tensors.items() if "qkv" not in name}, **parts}


def _loaded(
    tensors: Mapping[str, Tensor],
    folder: Path,
    *,
    kept: bool = False,
    dtype: torch.dtype = torch.float32,
    hook: WeightHook | None = None,
) -> Model:
    save_file({f"{PREFIX}{name}": tensor for name, tensor in tensors.items()}, folder / "m.safetensors")
    with init_empty_weights():
        model = Model()
    with open_checkpoint(folder / "m.safetensors") as checkpoint:
        if kept:
            AsStored(stored=stored_weights(checkpoint, KEYS)).prepare(model, KEYS, LAYOUT)
        load_into(model, checkpoint, keys=KEYS, device="cpu", dtype=dtype, on_weight=hook)
    return model


def _expected(tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the fused matrix in float32, computed by hand."""
    weight = tensors["attn.qkv.weight"].float()
    scale = next(
        (tensors[f"attn.qkv.{n}"] for n in ("scale_weight", "weight_scale") if f"attn.qkv.{n}" in tensors), None
    )
    if scale is None:
        return weight
    scale = scale[:, None] if scale.shape == (10,) else scale
    return (weight.view(10, 2, 4) * scale).view(10, 8) if scale.ndim == 3 else weight * scale


def _meaning(model: Model) -> Tensor:
    parts = (model.q, model.k, model.v)
    return torch.cat([part.dequantised() if isinstance(part, QuantLinear) else part.weight for part in parts])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "lifted"])
@pytest.mark.parametrize("fused", [True, False], ids=["original", "library"])
def test_a_quantised_matrix_means_the_same_kept_or_lifted_in_both_layouts(
    form: str, tmp_path: Path, *, kept: bool, fused: bool
) -> None:
    tensors = _tensors(form)

    model = _loaded(tensors if fused else _in_parts(tensors), tmp_path, kept=kept)

    assert torch.equal(_meaning(model), _expected(tensors))
    assert torch.equal(torch.cat([model.q.bias, model.k.bias, model.v.bias]), tensors["attn.qkv.bias"].float())
    assert {isinstance(module, QuantLinear) for module in (model.q, model.k, model.v)} == {kept}
    assert torch.equal(model.head.weight, tensors["head.weight"].float())
    assert torch.equal(model.head.bias, tensors["head.bias"].float())


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8], ids=str)
def test_what_is_kept_has_the_files_bits_and_no_hook_sees_it(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = _tensors("rows", dtype=dtype, name="weight_scale")
    seen: list[str] = []

    def watch(name: str, tensor: Tensor) -> Tensor:
        seen.append(name)
        return tensor

    model = _loaded(tensors, tmp_path, kept=True, hook=watch)

    bits = torch.cat([part.weight.view(torch.uint8) for part in (model.q, model.k, model.v)])
    assert torch.equal(bits, tensors["attn.qkv.weight"].view(torch.uint8))
    assert "attn.qkv.weight" not in seen
    assert {"attn.qkv.bias", "head.weight"} <= set(seen)
    assert all(p.untyped_storage().nbytes() == p.nbytes and not p.requires_grad for p in model.parameters())


def test_a_hook_sees_what_is_not_kept_in_float32(tmp_path: Path) -> None:
    tensors = _tensors("blocks")
    seen: dict[str, Tensor] = {}

    def remember(name: str, tensor: Tensor) -> Tensor:
        seen[name] = tensor.clone()
        return tensor

    model = _loaded(tensors, tmp_path, hook=remember, dtype=torch.bfloat16)

    assert torch.equal(seen["attn.qkv.weight"], _expected(tensors))
    assert seen["head.weight"].dtype == torch.float32
    assert torch.equal(_meaning(model), _expected(tensors).bfloat16())


def test_lifted_weights_are_quantised_as_any_other(tmp_path: Path) -> None:
    tensors = _tensors("scalar")
    hook = weight_hook((FP8Scaled(mode="channel"),), keys=KEYS, layout=LAYOUT)
    with init_empty_weights():
        model = Model()
    FP8Scaled(mode="channel").prepare(model, KEYS, LAYOUT)
    save_file(tensors, tmp_path / "m.safetensors")

    with open_checkpoint(tmp_path) as checkpoint:
        load_into(model, checkpoint, keys=KEYS, device="cpu", dtype=torch.float32, on_weight=hook)

    assert model.k.weight.dtype == torch.float8_e4m3fn
    torch.testing.assert_close(_meaning(model), _expected(tensors), rtol=0.07, atol=1e-3)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"attn.other.scale_weight": torch.ones(())}, "is a scale without its weight"),
        ({"attn.qkv.scale_weight": torch.ones(3, 1)}, "has shape 3x1, which scales no weight of shape 10x8"),
        ({"attn.qkv.weight": torch.ones(10, 8, dtype=torch.int8)}, "is stored as whole numbers without scales"),
    ],
)
def test_scales_that_cannot_be_right_are_named_together_with_other_problems(
    extra: Mapping[str, Tensor], words: str, tmp_path: Path
) -> None:
    tensors = {"attn.qkv.weight": torch.ones(10, 8).to(torch.float8_e4m3fn), "surplus": torch.zeros(1), **extra}

    with pytest.raises(WeightsError) as caught:
        _loaded(tensors, tmp_path)

    told = str(caught.value)
    assert words in told
    assert "surplus: is not known to the model" in told
    assert "head.bias: is missing from the file" in told


def test_scales_of_what_is_ignored_are_ignored(tmp_path: Path) -> None:
    save_file({**_tensors("none"), "decoder.a.scale_weight": torch.ones(3)}, tmp_path / "m.safetensors")
    with init_empty_weights():
        model = Model()

    with open_checkpoint(tmp_path) as checkpoint:
        load_into(model, checkpoint, keys=KEYS, device="cpu", dtype=torch.float32, ignore=(r"decoder\..*",))

    assert not model.head.weight.is_meta


def test_places_for_scales_that_the_file_lacks_are_missing(tmp_path: Path) -> None:
    save_file(_tensors("none"), tmp_path / "m.safetensors")
    with init_empty_weights():
        model = Model()
    FP8Scaled().prepare(model, KEYS, LAYOUT)

    with open_checkpoint(tmp_path) as checkpoint, pytest.raises(WeightsError, match=r"q\.scale: is missing"):
        load_into(model, checkpoint, keys=KEYS, device="cpu", dtype=torch.float32)
