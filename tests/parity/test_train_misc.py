"""Every kind of the reference's small results is compared by one of this file's neighbours."""

from __future__ import annotations

from pathlib import Path

from tests.parity.cases import vector, vector_stems

COMPARED = {
    "int_or_float": "names",
    "str_to_dtype": "names",
    "names": "names",
    "retention": "names",
    "sshs_hashes": "hashes",
    "modelspec": "modelspec",
}
"""Kinds, and the ``test_train_misc_<name>.py`` that compares them."""


def test_train_misc_every_kind_is_compared() -> None:
    kinds = {case["kind"] for stem in vector_stems("train_misc") for case in vector(stem)["cases"]}
    folder = Path(__file__).parent

    assert kinds <= COMPARED.keys()
    for kind in kinds:
        text = (folder / f"test_train_misc_{COMPARED[kind]}.py").read_text(encoding="utf-8")
        assert f'"{kind}"' in text
