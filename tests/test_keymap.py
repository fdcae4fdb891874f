from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi.keymap import KeyMap, LibraryName, OriginalOrder, Rename

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


ORDERED = OriginalOrder(
    (
        Rename("img_in", "x_embedder"),
        Rename("double.{}.attn", ("blocks.{}.to_q", "blocks.{}.to_k")),
        Rename("double.{}.mlp", "blocks.{}.ff"),
        Rename("single.{}.out", "single_blocks.{}.proj"),
        Rename("head", "proj_out"),
    )
)


@given(
    st.permutations(
        [
            "x_embedder",
            "proj_out",
            "single_blocks.0.proj",
            "blocks.10.ff",
            "blocks.10.to_q",
            "blocks.10.to_k",
            "blocks.2.ff",
            "blocks.2.to_q",
            "blocks.2.to_k",
            "something.else",
        ]
    )
)
def test_modules_come_in_the_original_s_order_whatever_the_library_s(names: list[str]) -> None:
    assert list(ORDERED.groups(names)) == [
        "img_in",
        "double.2.attn",
        "double.2.mlp",
        "double.10.attn",
        "double.10.mlp",
        "single.0.out",
        "head",
        "something.else",
    ]


def test_the_order_changes_no_group() -> None:
    names = ["proj_out", "blocks.0.to_k", "blocks.0.to_q", "x_embedder"]

    assert ORDERED.groups(names) == KeyMap(ORDERED.rules).groups(names)
