from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from musubi.architectures.qwen_image.facts import DitFacts
from musubi.architectures.qwen_image.tasks import MARK
from musubi.core.errors import WeightsError
from musubi.weights.checkpoint import open_checkpoint
from tests.architectures.qwen_image import published
from tests.architectures.wan.fakes import header_only


def test_the_published_sizes_are_the_defaults() -> None:
    facts = DitFacts.of(header_only(published.transformer()))

    assert facts == DitFacts()
    assert not facts.pruned


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model."])
def test_other_sizes_are_read_whatever_the_prefix(prefix: str) -> None:
    shapes = published.transformer(dim=256, blocks=range(3), inputs=16, text=40)

    facts = DitFacts.of(header_only({f"{prefix}{name}": shape for name, shape in shapes.items()}))

    assert facts == DitFacts(dim=256, blocks=(0, 1, 2), in_channels=16, out_channels=4, text_dim=40)


@pytest.mark.parametrize("blocks", [(0, 2, 10, 11), (3, 4)])
def test_missing_blocks_mean_that_the_file_is_pruned(blocks: tuple[int, ...]) -> None:
    facts = DitFacts.of(header_only(published.transformer(dim=128, blocks=blocks)))

    assert facts.blocks == blocks
    assert facts.pruned


def test_metadata_tells_how_a_head_is_dealt_to_the_axes() -> None:
    shapes = published.transformer(dim=48, head_dim=16, blocks=range(1))

    assert DitFacts.of(header_only(shapes, {"qwen_image.axes_dims_rope": "[4, 6, 6]"})).axes == (4, 6, 6)


@pytest.mark.parametrize(("name", "axes"), [("QwenImageTransformer2DModel", (8, 60, 60)), ("Other", (16, 56, 56))])
def test_only_a_config_of_the_model_counts(name: str, axes: tuple[int, ...], tmp_path: Path) -> None:
    shapes = published.transformer(dim=128, blocks=range(1), text=8)
    save_file({k: torch.empty(v, dtype=torch.bfloat16) for k, v in shapes.items()}, tmp_path / "dit.safetensors")
    config = json.dumps({"_class_name": name, "axes_dims_rope": [8, 60, 60]})
    (tmp_path / "config.json").write_text(config, encoding="utf-8")

    with open_checkpoint(tmp_path / "dit.safetensors") as checkpoint:
        assert DitFacts.of(checkpoint).axes == axes


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("txt_in.text_norm.weight", "Qwen-Image-2.1"),
        ("double_blocks.0.img_attn.qkv.weight", "a FLUX or HunyuanVideo transformer"),
        ("single_transformer_blocks.0.proj_mlp.weight", "a FLUX or HunyuanVideo transformer in diffusers' layout"),
        ("patch_embedding.weight", "a Wan transformer"),
    ],
)
def test_another_model_is_named(name: str, what: str) -> None:
    with pytest.raises(WeightsError, match=f"is {what}, not Qwen-Image"):
        DitFacts.of(header_only({**published.transformer(blocks=range(1)), name: (8, 8)}))


def test_a_mark_tells_that_pictures_to_change_have_no_noise() -> None:
    shapes = published.transformer(blocks=range(1))

    assert not DitFacts.of(header_only(shapes)).zero_time
    assert DitFacts.of(header_only({**shapes, MARK: ()})).zero_time


def test_a_second_table_of_times_tells_the_model_of_layers() -> None:
    shapes = {**published.transformer(blocks=range(1)), "time_text_embed.addition_t_embedding.weight": (2, 3072)}

    assert DitFacts.of(header_only(shapes)).layered


def test_something_else_is_refused() -> None:
    with pytest.raises(WeightsError, match="is no Qwen-Image transformer"):
        DitFacts.of(header_only({"encoder.conv1.weight": (8, 8, 3, 3)}))


def test_an_incomplete_file_says_what_it_lacks() -> None:
    shapes = published.transformer(blocks=range(1))
    del shapes["txt_in.weight"]

    with pytest.raises(WeightsError, match=r"lacks 'txt_in.weight'"):
        DitFacts.of(header_only(shapes))
