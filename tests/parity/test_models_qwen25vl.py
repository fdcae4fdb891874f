"""Qwen2.5-VL gives the reference's states, with words alone and with pictures, from a checkpoint in the old names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import Qwen2_5_VLModel

from musubi.architectures.qwen_image.vl import load_qwen25vl
from musubi.architectures.qwen_image.vl_facts import METADATA
from tests.parity.cases import golden, golden_stems, part

STEMS = golden_stems("models_qwen25vl")
KINDS = [
    (stem, name.removeprefix("in.").removesuffix(".input_ids"))
    for stem in STEMS
    for name in golden(stem)[1]
    if name.startswith("in.") and name.endswith(".input_ids")
]


def loaded(stem: str, folder: Path, *, rename: str = "") -> tuple[Qwen2_5_VLModel, dict[str, Tensor]]:
    meta, tensors = golden(stem)
    config: dict[str, Any] = meta["config"]
    vision, path = config["vision_config"], folder / "vl.safetensors"
    told = {
        "head_dim": config["hidden_size"] // config["num_attention_heads"],
        "mrope_section": config["rope_scaling"]["mrope_section"],
        "vision_heads": vision["num_heads"],
        "window_size": vision["window_size"],
        "fullatt_block_indexes": vision["fullatt_block_indexes"],
    }
    content = {newer(name) if rename else name: value for name, value in part(tensors, "ckpt.").items()}
    save_file(content, path, metadata={METADATA: json.dumps(told)})
    model = load_qwen25vl(path, device=torch.device("cpu"), dtype=torch.float32)
    model.config.image_token_id = config["image_token_id"]
    return model, tensors


def newer(name: str) -> str:
    """Return what newer files call a tensor."""
    if name.startswith("visual."):
        return f"model.{name}"
    return name.replace("model.", "model.language_model.", 1)


def states(model: Qwen2_5_VLModel, tensors: dict[str, Tensor], kind: str, *, told: bool = True) -> Tensor:
    given = part(tensors, f"in.{kind}.")
    ids = given["input_ids"]
    looked_at: dict[str, Tensor] = {}
    if "image_grid_thw" in given:
        pixels = given.get("pixel_values", tensors.get("in.edit_1img_each.pixel_values"))
        assert pixels is not None
        looked_at = {"pixel_values": pixels, "image_grid_thw": given["image_grid_thw"]}
        if told:
            looked_at["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=given["attention_mask"], use_cache=False, **looked_at)
    found: Tensor = output.last_hidden_state
    return found[given["attention_mask"].bool()]


@pytest.mark.parametrize("rename", ["", "newer"])
@pytest.mark.parametrize(("stem", "kind"), KINDS)
def test_models_qwen25vl(stem: str, kind: str, rename: str, tmp_path: Path) -> None:
    model, tensors = loaded(stem, tmp_path, rename=rename)
    mask = tensors[f"in.{kind}.attention_mask"].bool()

    found = states(model, tensors, kind)

    assert (found - tensors[f"out.{kind}.hidden_states_last"][mask]).abs().max() <= 2e-5


@pytest.mark.parametrize(("stem", "kind"), [(stem, kind) for stem, kind in KINDS if "img" in kind])
def test_models_qwen25vl_is_told_which_tokens_are_pictures(stem: str, kind: str, tmp_path: Path) -> None:
    model, tensors = loaded(stem, tmp_path)
    mask = tensors[f"in.{kind}.attention_mask"].bool()
    expected = tensors[f"out.{kind}.hidden_states_last"][mask]

    left_to_itself = states(model, tensors, kind, told=False)

    assert (left_to_itself - expected).norm() > 0.05 * expected.norm(), "transformers knows places itself now"


@pytest.mark.parametrize(("stem", "kind"), [(stem, kind) for stem, kind in KINDS if "img" in kind])
def test_models_qwen25vl_places(stem: str, kind: str, tmp_path: Path) -> None:
    model, tensors = loaded(stem, tmp_path)
    given = part(tensors, f"in.{kind}.")
    ids, mask = given["input_ids"], given["attention_mask"]

    index: Any = model.get_rope_index
    places, _ = index(
        ids,
        mm_token_type_ids=(ids == model.config.image_token_id).int(),
        image_grid_thw=given["image_grid_thw"],
        attention_mask=mask,
    )

    assert torch.equal(places[:, mask.bool()], tensors[f"out.{kind}.position_ids"][:, mask.bool()])
