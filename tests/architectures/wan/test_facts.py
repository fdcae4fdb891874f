from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from musubi.architectures.wan.detect import describe
from musubi.architectures.wan.facts import DitFacts, TextFacts
from musubi.architectures.wan.vae import load_vae
from musubi.core.errors import WeightsError
from musubi.testing.checkpoints import tiny_wan
from musubi.weights.checkpoint import Checkpoint, open_checkpoint
from tests.architectures.wan import published
from tests.architectures.wan.fakes import header_only


def _dit(checkpoint: Checkpoint) -> DitFacts:
    return DitFacts.of(checkpoint, describe(checkpoint))


def test_the_published_sizes_are_read() -> None:
    facts = _dit(header_only(published.transformer(published.LARGE)))

    assert facts == DitFacts(
        dim=5120,
        ffn_dim=13824,
        num_heads=40,
        num_layers=40,
        in_channels=16,
        out_channels=16,
        text_dim=4096,
        freq_dim=256,
        patch=(1, 2, 2),
        image_dim=None,
        image_tokens=None,
        image_keys=False,
    )


def test_image_conditioning_is_read() -> None:
    facts = _dit(header_only(published.transformer(published.LARGE, inputs=36, clip=True, flf=True)))

    assert (facts.image_dim, facts.image_tokens, facts.image_keys) == (1280, 514, True)


def test_metadata_tells_the_heads() -> None:
    shapes = published.transformer(published.SMALL)

    assert _dit(header_only(shapes, {"wan.num_heads": "6"})).num_heads == 6


def test_without_metadata_a_width_of_no_whole_heads_is_refused() -> None:
    shapes = published.transformer(published.Size(96, 128, 1))

    with pytest.raises(WeightsError, match="how many heads share the width of 96") as caught:
        _dit(header_only(shapes))

    assert "wan.num_heads" in caught.value.issues[0].hint


@pytest.mark.parametrize(("name", "heads"), [("WanModel", 6), ("WanTransformer3DModel", 6), ("FluxTransformer", 12)])
def test_only_a_config_of_the_model_counts(name: str, heads: int, tmp_path: Path) -> None:
    shapes = published.transformer(published.Size(1536, 8, 1))
    save_file({k: torch.empty(v, dtype=torch.bfloat16) for k, v in shapes.items()}, tmp_path / "dit.safetensors")
    config = json.dumps({"_class_name": name, "num_heads": 6})
    (tmp_path / "config.json").write_text(config, encoding="utf-8")

    with open_checkpoint(tmp_path / "dit.safetensors") as checkpoint:
        assert _dit(checkpoint).num_heads == heads


def test_metadata_tells_the_statistics_of_latents(tmp_path: Path) -> None:
    path = tiny_wan(tmp_path).weight("vae").resolve()
    with open_checkpoint(path) as checkpoint:
        tensors = {name: checkpoint.read(name).clone() for name in checkpoint.names()}
    told = {"wan_vae.latents_mean": json.dumps([0.5] * 16), "wan_vae.latents_std": json.dumps([2] * 16)}
    save_file(tensors, tmp_path / "other.safetensors", metadata=told)

    config = load_vae(tmp_path / "other.safetensors", device=torch.device("cpu"), dtype=torch.float32).config

    assert list(config["latents_mean"]) == [0.5] * 16
    assert list(config["latents_std"]) == [2.0] * 16


def test_the_published_text_encoder_is_read() -> None:
    facts = TextFacts.of(describe(header_only(published.umt5())))

    assert facts == TextFacts(
        vocabulary=256384, dim=4096, ffn_dim=10240, num_heads=64, head_dim=64, num_layers=24, num_buckets=32
    )
