from __future__ import annotations

import pytest

from musubi.architectures.wan.clip import empty_clip
from musubi.architectures.wan.clip_facts import ClipFacts
from musubi.architectures.wan.clip_keys import CLIP
from musubi.architectures.wan.detect import describe
from musubi.keymap import KeyMap
from tests.architectures.wan.fakes import header_only

Shapes = dict[str, tuple[int, ...]]
WIDTH, FFN, LAYERS = 1280, 5120, 32


def published() -> Shapes:
    """Return what is in the published file but the text encoder and the last projection."""
    shapes: Shapes = {
        "visual.patch_embedding.weight": (WIDTH, 3, 14, 14),
        "visual.cls_embedding": (1, 1, WIDTH),
        "visual.pos_embedding": (1, 257, WIDTH),
    }
    for norm in ("pre_norm", "post_norm", *(f"transformer.{n}.norm{i}" for n in range(LAYERS) for i in (1, 2))):
        shapes |= {f"visual.{norm}.weight": (WIDTH,), f"visual.{norm}.bias": (WIDTH,)}
    for name, rows, columns in (
        ("attn.to_qkv", 3 * WIDTH, WIDTH),
        ("attn.proj", WIDTH, WIDTH),
        ("mlp.0", FFN, WIDTH),
        ("mlp.2", WIDTH, FFN),
    ):
        for place in (f"visual.transformer.{n}.{name}" for n in range(LAYERS)):
            shapes |= {f"{place}.weight": (rows, columns), f"{place}.bias": (rows,)}
    return shapes


def library(shapes: Shapes) -> Shapes:
    """Return the same under transformers' names, matrices of several parts split by rows."""
    split: Shapes = {}
    for name, shape in shapes.items():
        parts = CLIP.to_library(name)
        flat = tuple(side for side in shape if side != 1)
        split |= {part.name: (flat[0] // len(parts), *flat[1:]) for part in parts}
    return split


@pytest.mark.parametrize("prefix", ["original", "", "vision_model."])
def test_the_sizes_are_read_in_every_spelling(prefix: str) -> None:
    shapes = published()
    if prefix != "original":
        shapes = {prefix + name: shape for name, shape in library(shapes).items()}
    checkpoint = header_only(shapes)

    found = describe(checkpoint)

    assert found.kind == "clip"
    assert ClipFacts.of(checkpoint, found) == ClipFacts(
        width=WIDTH, ffn_width=FFN, num_heads=16, num_layers=LAYERS, image_size=224, patch=14
    )


def test_all_but_the_last_block_maps_completely_and_back_at_published_size() -> None:
    checkpoint = header_only(published())

    model = empty_clip(ClipFacts.of(checkpoint, describe(checkpoint)))

    wanted = {name: shape for name, shape in published().items() if f"transformer.{LAYERS - 1}." not in name}
    parameters = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert library(wanted) == parameters
    assert {CLIP.to_original(name)[0] for name in parameters} == set(wanted)
    assert KeyMap(CLIP.rules).to_original("post_layernorm.bias")[0] == "visual.post_norm.bias"
