from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from musubi.architectures.flux_kontext.facts import DitFacts, has_library_names
from musubi.architectures.flux_kontext.keys import DIT
from musubi.core.errors import WeightsError
from musubi.weights.checkpoint import open_checkpoint
from tests.architectures.flux_kontext import published
from tests.architectures.wan.fakes import header_only


def _in_diffusers_layout(shapes: published.Shapes) -> published.Shapes:
    """Return names of parts; the rows of fused ones do not matter here."""
    return {part.name: shape for name, shape in shapes.items() for part in DIT.to_library(name)}


def test_the_published_sizes_are_the_defaults() -> None:
    assert DitFacts.of(header_only(published.transformer())) == DitFacts()


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model."])
def test_other_sizes_are_read_whatever_the_prefix(prefix: str) -> None:
    shapes = published.transformer(dim=512, double=3, single=5, text=32, pooled=24, guided=False)

    facts = DitFacts.of(header_only({f"{prefix}{name}": shape for name, shape in shapes.items()}))

    assert facts == DitFacts(dim=512, num_double=3, num_single=5, text_dim=32, pooled_dim=24, guided=False)


def test_diffusers_layout_is_read_alike() -> None:
    shapes = published.transformer(double=3, single=5)
    layouts = [header_only(shapes), header_only(_in_diffusers_layout(shapes))]

    assert DitFacts.of(layouts[0]) == DitFacts.of(layouts[1]) == DitFacts(num_double=3, num_single=5)
    assert [has_library_names(checkpoint) for checkpoint in layouts] == [False, True]


def test_metadata_tells_how_a_head_is_dealt_to_the_axes() -> None:
    shapes = published.transformer(dim=48, head_dim=16, double=1, single=1)

    assert DitFacts.of(header_only(shapes, {"flux.axes_dims_rope": "[4, 6, 6]"})).axes == (4, 6, 6)


@pytest.mark.parametrize(("name", "axes"), [("FluxTransformer2DModel", (8, 60, 60)), ("Other", (16, 56, 56))])
def test_only_a_config_of_the_model_counts(name: str, axes: tuple[int, ...], tmp_path: Path) -> None:
    shapes = published.transformer(dim=128, double=1, single=1, text=8)
    save_file({k: torch.empty(v, dtype=torch.bfloat16) for k, v in shapes.items()}, tmp_path / "dit.safetensors")
    config = json.dumps({"_class_name": name, "axes_dims_rope": [8, 60, 60]})
    (tmp_path / "config.json").write_text(config, encoding="utf-8")

    with open_checkpoint(tmp_path / "dit.safetensors") as checkpoint:
        assert DitFacts.of(checkpoint).axes == axes


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("single_stream_modulation.lin.weight", "a FLUX.2 transformer"),
        ("distilled_guidance_layer.in_proj.weight", "a Chroma transformer"),
        ("transformer_blocks.0.img_mod.1.weight", "a Qwen-Image transformer"),
        ("x_embedder.proj.weight", "a HunyuanVideo or FramePack transformer"),
        ("patch_embedding.weight", "a Wan transformer"),
        ("encoder.down.0.block.0.conv1.weight", "no FLUX.1 transformer"),
    ],
)
def test_another_model_is_named(name: str, what: str) -> None:
    with pytest.raises(WeightsError, match=f"is {what}, not FLUX.1 Kontext"):
        DitFacts.of(header_only({name: (8, 8)}))


@pytest.mark.parametrize(("inputs", "what"), [(128, "FLUX.1 Canny or Depth"), (384, "FLUX.1 Fill"), (96, "96 input")])
def test_flux_models_of_other_inputs_are_named(inputs: int, what: str) -> None:
    with pytest.raises(WeightsError, match=what):
        DitFacts.of(header_only(published.transformer(double=1, single=1, inputs=inputs)))


def test_an_incomplete_file_says_what_it_lacks() -> None:
    shapes = published.transformer(double=1, single=1)
    del shapes["vector_in.in_layer.weight"]

    with pytest.raises(WeightsError, match=r"lacks 'vector_in.in_layer.weight'"):
        DitFacts.of(header_only(shapes))
