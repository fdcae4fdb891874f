from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi.weights.companions import Companions, Stated, scale_form

FP8 = Stated("float8_e4m3fn", (6, 8))
SCALE = Stated("float32", ())


@pytest.mark.parametrize(
    ("scale", "form"),
    [
        ((), ()),
        ((1,), ()),
        ((1, 1), ()),
        ((6,), (6, 1)),
        ((6, 1), (6, 1)),
        ((6, 4), (6, 4, 1)),
        ((6, 4, 1), (6, 4, 1)),
        ((6, 3), None),
        ((8,), None),
        ((3, 1), None),
        ((6, 0), None),
        ((6, 2, 2), None),
    ],
)
def test_a_shape_says_what_shares_a_scale(scale: tuple[int, ...], form: tuple[int, ...] | None) -> None:
    assert scale_form(scale, (6, 8)) == form


@given(rows=st.integers(1, 6), blocks=st.integers(1, 6), block=st.integers(1, 4))
def test_a_form_says_itself_again(rows: int, blocks: int, block: int) -> None:
    weight = rows, blocks * block

    for scale in ((), (rows, 1), (rows, blocks, 1)):
        form = scale_form(scale, weight)
        assert form is not None
        assert scale_form(form, weight) == form


@pytest.mark.parametrize("name", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_scales_go_with_their_weights_and_the_rest_is_set_aside(name: str, prefix: str) -> None:
    own = [f"{prefix}a.{name}", f"{prefix}a.scale_input", f"{prefix}a.input_scale", f"{prefix}a.comfy_quant"]
    tensors = {f"{prefix}a.weight": FP8, f"{prefix}a.bias": SCALE, f"{prefix}scaled_fp8": SCALE}

    found = Companions.of({**tensors, **dict.fromkeys(own, SCALE)})

    assert {weight: scale.name for weight, scale in found.scales.items()} == {f"{prefix}a.weight": own[0]}
    assert found.names == {*own, f"{prefix}scaled_fp8"}
    assert found.issues == ()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a.scale_weight": SCALE}, "is a scale without its weight"),
        ({"a.weight": FP8, "a.scale_weight": Stated("float32", (5, 1))}, "has shape 5x1, which scales no weight"),
        ({"a.weight": FP8, "a.scale_weight": SCALE, "a.weight_scale": SCALE}, "is a second scale"),
        ({"a.weight": FP8, "a.weight_scale": Stated("uint8", (6, 4))}, "scale of type uint8"),
        ({"a.weight": Stated("uint8", (6, 8)), "a.weight_scale": SCALE}, "weight of type uint8"),
    ],
)
def test_scales_that_cannot_be_right_are_named(tensors: dict[str, Stated], message: str) -> None:
    (issue,) = Companions.of(tensors).issues

    assert message in issue.message


def test_no_torch_is_imported_to_tell() -> None:
    program = "import sys; import musubi.weights.companions, musubi.weights.stored; print('torch' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
