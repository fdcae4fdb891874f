"""Which weights the reference stores in 8 bits, by their original names."""

from __future__ import annotations

import pytest

from musubi import FluxKontext, FramePack, QwenImage, Wan
from musubi.architecture import Layout
from musubi.memory.quantise import quantises
from tests.parity import cases

LAYOUTS: dict[str, Layout] = {
    "wan": Wan.t2v_14b().layout,
    "framepack": FramePack().layout,
    "flux_kontext": FluxKontext().layout,
    "qwen_image": QwenImage.text_to_image().layout,
}
CASES = [
    (stem, architecture, name, expected)
    for stem in cases.vector_stems("mem_fp8_keys")
    for architecture, rule in cases.vector(stem)["arch"].items()
    for name, expected in rule["keys"].items()
]


@pytest.mark.parametrize(
    ("architecture", "name", "expected"),
    [case[1:] for case in CASES],
    ids=[f"{stem}-{architecture}-{name}" for stem, architecture, name, _ in CASES],
)
def test_mem_fp8_keys(architecture: str, name: str, *, expected: bool) -> None:
    assert quantises(name, LAYOUTS[architecture]) == expected
