from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from musubi.core.errors import WeightsError
from musubi.weights.checkpoint import open_checkpoint


def _bytes(content: object) -> Tensor:
    text = content if isinstance(content, str) else json.dumps(content)
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


@pytest.mark.parametrize(
    "name",
    [
        "a.weight_scale_2",
        "a.weight_scale_inv",
        "a.pre_quant_scale",
        "model.diffusion_model.a.svd_down",
        "a.qweight",
        "a.wscales",
        "a.weight.absmax",
        "a.weight.quant_state.bitsandbytes__nf4",
    ],
)
def test_tensors_of_other_formats_are_refused_with_the_way_out(name: str, tmp_path: Path) -> None:
    save_file({"a.weight": torch.zeros(2, 2), name: torch.zeros(1)}, tmp_path / "m.safetensors")

    with pytest.raises(WeightsError, match="not supported") as caught:
        open_checkpoint(tmp_path / "m.safetensors")

    assert "m.safetensors" in caught.value.issues[0].path
    assert name in caught.value.issues[0].message
    assert "bf16" in caught.value.issues[0].hint


@pytest.mark.parametrize(
    ("told", "what"),
    [
        ({"format": "nvfp4"}, "format nvfp4"),
        ({"format": "mxfp8"}, "format mxfp8"),
        ({"format": "int8_blockwise", "group_size": 128}, "format int8_blockwise"),
        ({"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 256}, "convrot True"),
        ({"format": "float8_e4m3fn", "news": 3}, "news 3"),
        ({"format": ["int8_tensorwise"]}, "format ['int8_tensorwise']"),
        ([1], "a description that cannot be read"),
        ("no json", "a description that cannot be read"),
    ],
)
@pytest.mark.parametrize("beside", [True, False], ids=["beside the weight", "in the metadata"])
def test_formats_that_are_not_read_are_refused(told: object, what: str, tmp_path: Path, *, beside: bool) -> None:
    tensors = {"a.weight": torch.zeros(2, 2).to(torch.float8_e4m3fn)}
    if beside:
        save_file({**tensors, "a.comfy_quant": _bytes(told)}, tmp_path / "m.safetensors")
    else:
        layers = json.dumps({"format_version": "1.0", "layers": {"a": told}})
        save_file(tensors, tmp_path / "m.safetensors", metadata={"_quantization_metadata": layers})

    with pytest.raises(WeightsError) as caught:
        open_checkpoint(tmp_path / "m.safetensors")

    assert what in caught.value.issues[0].message


@pytest.mark.parametrize(
    "told",
    [
        {"format": "float8_e4m3fn"},
        {"format": "float8_e5m2", "full_precision_matrix_mult": True},
        {"format": "int8_tensorwise", "convrot": False},
    ],
)
def test_eight_bits_times_a_scale_are_read(told: dict[str, object], tmp_path: Path) -> None:
    layers = json.dumps({"layers": {"a": told}})
    tensors = {"a.weight": torch.zeros(2, 2).to(torch.float8_e4m3fn), "a.comfy_quant": _bytes(told)}
    save_file(tensors, tmp_path / "m.safetensors", metadata={"_quantization_metadata": layers})

    with open_checkpoint(tmp_path / "m.safetensors") as checkpoint:
        assert "a.weight" in checkpoint
