from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi.networks.keys import LAYOUTS, LayoutName, bare, flat, layout_of, split
from tests.networks.weighted import KINDS, weights_of

modules = st.lists(
    st.from_regex(r"[a-z][a-z0-9_]{0,8}|[0-9]{1,2}", fullmatch=True).filter(
        lambda part: part not in {"transformer", "diffusion_model", "base_model", "lora", "model"}
    ),
    min_size=2,
    max_size=5,
).map(".".join)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
@given(module=modules)
def test_what_a_layout_writes_is_read_back(kind: str, layout: LayoutName, module: str) -> None:
    form = LAYOUTS[layout]
    for role in weights_of(kind).tensors():
        parts = split(form.key(module, role))

        assert parts is not None
        assert flat(parts[0]) == flat(module)
        assert parts[1] == role


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_recognised_by_its_keys(layout: LayoutName) -> None:
    form = LAYOUTS[layout]
    roles = ("down", "up", *(("alpha",) if form.alpha else ()))

    assert layout_of([form.key("blocks.0.ffn.0", role) for role in roles]) == layout


@pytest.mark.parametrize(
    ("key", "module"),
    [
        ("transformer.blocks.0.attn1.to_q.lora_A.weight", "blocks.0.attn1.to_q"),
        ("base_model.model.blocks.0.ffn.0.lora_A.weight", "blocks.0.ffn.0"),
        ("blocks.0.ffn.0.lora_A.default.weight", "blocks.0.ffn.0"),
        ("blocks.0.ffn.0.lora_A.my_style.weight", "blocks.0.ffn.0"),
        ("transformer_blocks.0.attn.to_q.lora_A.weight", "transformer_blocks.0.attn.to_q"),
        ("transformer.transformer_blocks.3.attn.to_q.lora.down.weight", "transformer_blocks.3.attn.to_q"),
        ("transformer_blocks.3.attn.to_q_lora.down.weight", "transformer_blocks.3.attn.to_q"),
        ("lora_transformer_transformer_blocks_0_attn_to_q.lora_down.weight", "transformer_blocks_0_attn_to_q"),
    ],
)
def test_other_peoples_names_are_understood(key: str, module: str) -> None:
    assert split(key) == (module, "down")


@pytest.mark.parametrize(
    ("key", "role"),
    [
        ("lycoris_blocks_0_ffn_0.lokr_w1", "lokr_w1"),
        ("diffusion_model.blocks.0.ffn.0.hada_w2_b", "hada_w2_b"),
        ("base_model.model.blocks.0.ffn.0.lora_magnitude_vector", "dora_scale"),
        ("blocks.0.ffn.0.lora_magnitude_vector.default.weight", "dora_scale"),
        ("blocks.0.ffn.0.dora_scale", "dora_scale"),
    ],
)
def test_other_kinds_of_adapters_have_their_roles(key: str, role: str) -> None:
    parts = split(key)

    assert parts is not None
    assert (flat(parts[0]), parts[1]) == ("blocks_0_ffn_0", role)


@pytest.mark.parametrize(
    "key", ["blocks.0.ffn.0.weight", "blocks.0.norm.diff_b", "blocks.0.q.lora_mid.weight", "alpha"]
)
def test_other_tensors_are_no_adapters(key: str) -> None:
    assert split(key) is None


def test_only_one_prefix_is_taken_off() -> None:
    assert bare("transformer.transformer.q") == "transformer.q"
