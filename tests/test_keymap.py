from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi.keymap import KeyMap, LibraryName, Rename

MAP = KeyMap(
    (
        Rename("blocks.{}.attn.qkv", ("blocks.{}.attn.to_q", "blocks.{}.attn.to_k", "blocks.{}.attn.to_v")),
        Rename("blocks.{}.mlp.0", "blocks.{}.ff.net.0.proj"),
        Rename("head", "proj_out"),
    )
)
leaves = st.sampled_from(["", ".weight", ".bias", ".lora.down.weight"])
modules = st.sampled_from(["blocks.{}.attn.qkv", "blocks.{}.mlp.0", "head", "untouched.{}.norm", "blocks.{}.attn.out"])


@given(module=modules, index=st.integers(0, 99), leaf=leaves)
def test_there_and_back_is_where_it_began(module: str, index: int, leaf: str) -> None:
    original = module.replace("{}", str(index)) + leaf

    for place in MAP.to_library(original):
        assert MAP.to_original(place.name) == (original, place)


def test_a_fused_module_is_split_in_row_order() -> None:
    assert MAP.to_library("blocks.7.attn.qkv.weight") == (
        LibraryName("blocks.7.attn.to_q.weight", 0, 3),
        LibraryName("blocks.7.attn.to_k.weight", 1, 3),
        LibraryName("blocks.7.attn.to_v.weight", 2, 3),
    )


@pytest.mark.parametrize("name", ["header.weight", "my.head", "blocks.0.mlp.00", "blocks.0.1.mlp.0"])
def test_a_rule_covers_whole_components_only(name: str) -> None:
    assert MAP.to_library(name) == (LibraryName(name),)


def test_modules_are_grouped_by_original_in_the_order_met() -> None:
    library = ["proj_out", "blocks.0.attn.to_v", "blocks.0.attn.to_q", "blocks.0.attn.to_k", "extra"]

    assert MAP.groups(library) == {
        "head": ("proj_out",),
        "blocks.0.attn.qkv": ("blocks.0.attn.to_q", "blocks.0.attn.to_k", "blocks.0.attn.to_v"),
        "extra": ("extra",),
    }
    assert list(MAP.groups(library)) == ["head", "blocks.0.attn.qkv", "extra"]


def test_an_incomplete_group_is_left_out() -> None:
    assert MAP.groups(["blocks.0.attn.to_q", "blocks.0.attn.to_k"]) == {}


def test_maps_are_values() -> None:
    assert KeyMap([Rename("a", "b")]) == KeyMap((Rename("a", ("b",)),))
    assert hash(MAP) == hash(KeyMap(MAP.rules))
