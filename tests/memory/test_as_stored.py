from __future__ import annotations

import pytest
import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from musubi.architecture import Layout, StoredWeight
from musubi.keymap import KeyMap
from musubi.memory.as_stored import AsStored
from musubi.memory.quant_linear import QuantLinear

KEYS = KeyMap(())
LAYOUT = Layout(blocks=(), adapters=(), quantise=("0", "1"))
FORMS = [None, (), (6, 1), (6, 2, 1), (6, 4, 1)]


def _prepared(policy: AsStored, *, inputs: int = 128) -> nn.ModuleList:
    with init_empty_weights():
        model = nn.ModuleList(nn.Linear(inputs, 6) for _ in range(3))
    policy.prepare(model, KEYS, LAYOUT)
    return model


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_places_have_the_form_of_the_file(form: tuple[int, ...] | None, dtype: str) -> None:
    found = StoredWeight(dtype=dtype, scale=form)

    first, second, third = _prepared(AsStored(stored={"0": found, "2": found}))

    assert isinstance(first, QuantLinear)
    assert first.weight.dtype == getattr(torch, dtype)
    assert (None if first.scale is None else tuple(first.scale.shape)) == form
    assert type(second) is type(third) is nn.Linear  # one is not of the file's 8 bits, the other not of the layout's


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "int8"])
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("inputs", [128, 96])
def test_what_is_merged_never_looks_like_the_file(form: tuple[int, ...] | None, inputs: int, dtype: str) -> None:
    policy = AsStored(stored={"0": StoredWeight(dtype=dtype, scale=form)}, merged=frozenset({"0", "1"}))
    hook = policy.weight_hook(KEYS, LAYOUT)
    assert hook is not None
    weight = torch.randn(6, inputs, generator=torch.Generator().manual_seed(0))

    place = _prepared(policy, inputs=inputs)[0]
    result = hook("0.weight", weight)

    assert isinstance(place, QuantLinear)
    assert place.scale is not None
    assert not isinstance(result, Tensor)
    assert result["weight"].dtype == place.weight.dtype == getattr(torch, dtype)
    assert result["scale"].shape == place.scale.shape
    assert tuple(result["scale"].shape) != form
    back = place.format.dequantise(result["weight"], result["scale"], shape=(6, inputs), dtype=torch.float32)
    assert float((back - weight).norm() / weight.norm()) < (0.01 if dtype == "int8" else 0.03)


def test_what_is_merged_stays_wide_where_no_blocks_fit() -> None:
    policy = AsStored(stored={"0": StoredWeight(dtype="float8_e4m3fn", scale=(6, 1))}, merged=frozenset({"0"}))
    hook, weight = policy.weight_hook(KEYS, LAYOUT), torch.ones(6, 80)
    assert hook is not None

    assert type(_prepared(policy, inputs=80)[0]) is nn.Linear
    assert hook("0.weight", weight) is weight


def test_what_is_not_merged_passes() -> None:
    policy = AsStored(stored={"0": StoredWeight(dtype="int8", scale=(6, 1))}, merged=frozenset({"0"}))
    hook, tensor = policy.weight_hook(KEYS, LAYOUT), torch.ones(6, 128)

    assert hook is not None
    assert hook("1.weight", tensor) is tensor
    assert hook("0.bias", tensor) is tensor
    assert AsStored(stored=policy.stored).weight_hook(KEYS, LAYOUT) is None
