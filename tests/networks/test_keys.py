from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi.networks.keys import LAYOUTS, LayoutName, flat, layout_of, split

modules = st.lists(
    st.from_regex(r"[a-z][a-z0-9_]{0,8}|[0-9]{1,2}", fullmatch=True).filter(
        lambda part: part not in {"transformer", "diffusion_model", "base_model"}
    ),
    min_size=2,
    max_size=5,
).map(".".join)


@pytest.mark.parametrize("layout", LAYOUTS)
@given(module=modules)
def test_what_a_layout_writes_is_read_back(layout: LayoutName, module: str) -> None:
    form = LAYOUTS[layout]
    for role in ("down", "up"):
        parts = split(form.key(module, role))

        assert parts is not None
        assert flat(parts[0]) == flat(module)
        assert parts[1] == role


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_recognised_by_its_keys(layout: LayoutName) -> None:
    assert layout_of(LAYOUTS[layout].key("blocks.0.ffn.0", "down")) == layout


@pytest.mark.parametrize(
    ("key", "module"),
    [
        ("transformer.blocks.0.attn1.to_q.lora_A.weight", "blocks.0.attn1.to_q"),
        ("base_model.model.blocks.0.ffn.0.lora_A.weight", "blocks.0.ffn.0"),
        ("blocks.0.ffn.0.lora_A.default.weight", "blocks.0.ffn.0"),
        ("transformer_blocks.0.attn.to_q.lora_A.weight", "transformer_blocks.0.attn.to_q"),
    ],
)
def test_other_peoples_prefixes_are_understood(key: str, module: str) -> None:
    assert split(key) == (module, "down")


@pytest.mark.parametrize("key", ["blocks.0.ffn.0.weight", "blocks.0.ffn.0.dora_scale", "blocks.0.norm.diff_b"])
def test_other_tensors_are_no_lora(key: str) -> None:
    assert split(key) is None
