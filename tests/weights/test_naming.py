from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from musubi.keymap import KeyMap, Rename
from musubi.weights.naming import Piece, count_after, plan_pieces, strip

KEYS = KeyMap((Rename("blocks.{}.qkv", ("blocks.{}.q", "blocks.{}.k", "blocks.{}.v")), Rename("head", "out")))
PARAMETERS = {
    name: name for name in ("blocks.0.q.weight", "blocks.0.k.weight", "blocks.0.v.weight", "out.weight", "same")
}


def _names(*names: str) -> dict[str, str]:
    return {name: name for name in names}


def test_an_original_tensor_goes_to_the_parameters_that_take_its_rows() -> None:
    pieces, issues = plan_pieces(_names("blocks.0.qkv.weight", "head.weight", "same"), KEYS, PARAMETERS)

    assert issues == []
    assert pieces == [
        Piece("blocks.0.qkv.weight", ("blocks.0.qkv.weight",), tuple(PARAMETERS)[:3]),
        Piece("head.weight", ("head.weight",), ("out.weight",)),
        Piece("same", ("same",), ("same",)),
    ]


def test_library_tensors_are_gathered_under_their_original_name() -> None:
    pieces, issues = plan_pieces(_names(*reversed(PARAMETERS)), KEYS, PARAMETERS)

    assert issues == []
    assert Piece("blocks.0.qkv.weight", tuple(PARAMETERS)[:3], tuple(PARAMETERS)[:3]) in pieces
    assert Piece("head.weight", ("out.weight",), ("out.weight",)) in pieces


def test_what_nobody_knows_is_reported_under_its_name_in_the_file() -> None:
    _, issues = plan_pieces({"model.same": "same", "model.other": "other"}, KEYS, PARAMETERS)

    assert [issue.path for issue in issues] == ["model.other"]


def test_two_tensors_for_one_parameter_are_reported() -> None:
    _, issues = plan_pieces({"same": "same", "model.same": "same"}, KEYS, PARAMETERS)

    assert [issue.path for issue in issues] == ["model.same"]


def test_the_second_name_of_a_tied_parameter_is_redundant() -> None:
    pieces, issues = plan_pieces(_names("a", "b"), KeyMap(()), {"a": "a", "b": "a"})

    assert issues == []
    assert [piece.targets for piece in pieces] == [("a",)]


@given(st.text(), st.sampled_from(["model.diffusion_model.", "diffusion_model.", "model.model."]))
def test_a_known_prefix_is_stripped_once(name: str, prefix: str) -> None:
    assert strip(prefix + name, [prefix]) == name


def test_what_follows_a_prefix_is_counted_once() -> None:
    names = ["blocks.0.attn.weight", "blocks.0.attn.bias", "blocks.10.mlp.weight", "single_blocks.3.x", "head.weight"]

    assert count_after(names, "blocks.") == 2
    assert count_after(names, "layers.") == 0
