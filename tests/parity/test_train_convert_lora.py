"""Names and strengths turn from one layout into the other as the reference's converter does it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from musubi.networks.file import LoRAFile
from musubi.networks.keys import LAYOUTS, flat, split
from musubi.networks.reading import modules_in
from musubi.networks.weights import LoRAWeights
from tests.parity.cases import vector_cases

CASES = vector_cases("train_convert_lora")
_PREFIXES = ("diffusion_model", "transformer")
"""What the reference reads; it drops other keys with a warning, where ours reads or refuses them."""


def _each(kind: str) -> pytest.MarkDecorator:
    cases = [case for case in CASES if case["kind"] == kind]
    return pytest.mark.parametrize("case", cases, ids=[case["id"] for case in cases])


@_each("to_other")
def test_train_convert_lora_names_equal_the_reference(case: dict[str, Any]) -> None:
    module, form = case["true_module"], LAYOUTS["peft"]

    keys = [form.key(module, "down"), form.key(module, "up")]

    assert LAYOUTS["reference"].key(module, "down") == f"{case['lora_name']}.lora_down.weight"
    assert [split(key) for key in keys] == [(module, "down"), (module, "up")]
    assert split(f"{case['lora_name']}.lora_up.weight") == (flat(module), "up")
    if case["ref_correct"]:
        assert keys == case["ref_keys"]
    else:  # the reference parses underscores back and misses (spec/training.md 8.1, 17): ours is the model's own name
        assert keys == [key.replace(case["ref_module"], module) for key in case["ref_keys"]]


@_each("to_other")
def test_train_convert_lora_a_flat_name_is_found_among_the_models(case: dict[str, Any]) -> None:
    module = case["true_module"]
    flat_file = LoRAFile(modules={flat(module): _lora(2, 1.0)}, naming="flat")

    bound = flat_file.bind([f"{module}_neighbour", module, "other.0"])

    assert list(bound.tensors("peft")) == [f"diffusion_model.{module}.lora_{half}.weight" for half in "AB"]


@_each("to_other_scale")
def test_train_convert_lora_the_strength_goes_into_the_matrices(case: dict[str, Any]) -> None:
    # The reference gives both matrices the square root; ours gives one a power of two, which rounds nothing. The
    # product is the same.
    alpha = case["rank"] if case["alpha"] is None else case["alpha"]
    file = LoRAFile(modules={"blocks.0.q": _lora(case["rank"], alpha, value=case["down_in"])})

    tensors = file.tensors("peft")

    down, up = (float(tensors[f"diffusion_model.blocks.0.q.lora_{half}.weight"].flatten()[0]) for half in "AB")
    assert math.isclose(down * up, case["down_out"] * case["up_out"], rel_tol=1e-6)
    assert not any(name.endswith("alpha") for name in tensors)


@_each("to_other_prefix")
def test_train_convert_lora_prefixes_are_understood(case: dict[str, Any]) -> None:
    parts = [split(key) for key in case["keys"]]

    prefix = f"{case['diffusers_prefix']}."
    modules = {key.removeprefix(prefix).rpartition(".lora_")[0] for key in case["keys"]}
    assert [part[1] for part in parts if part] == ["down", "up"]
    if case["diffusers_prefix"] in _PREFIXES:
        assert {part[0] for part in parts if part} == modules


@_each("from_other")
def test_train_convert_lora_other_names_become_the_references(case: dict[str, Any]) -> None:
    expected = [key for key in case["output"] if split(key)]
    written: list[str] = []
    for key in case["input_keys"]:
        parts = split(key)
        if parts is None:  # no adapter's tensor (diff, diff_b): the reference passes it on with a mangled name
            assert not any(key.endswith(ending) for ending in (".lora_A.weight", ".lora_B.weight", ".alpha"))
        elif parts[1] not in _known(case):  # the reference mangles the name
            assert not any(flat(parts[0]) + f".{parts[1]}" in name for name in case["output"])
        elif key.split(".")[0] in _PREFIXES:
            written.append(LAYOUTS["reference"].key(flat(parts[0]), parts[1]))
        else:  # the reference drops the key
            assert not case["output"]
    implied = {key for key in expected if key.endswith(".alpha")}

    if any(".default" in key for key in case["input_keys"]):  # the reference breaks PEFT's (spec/training.md 6.1)
        assert all(map(split, case["input_keys"]))
    else:
        assert {*written, *implied} == set(expected)


@_each("from_other")
def test_train_convert_lora_a_missing_alpha_is_the_rank(case: dict[str, Any]) -> None:
    tensors = {key: _tensor(key) for key in case["input_keys"]}
    roles = {parts[1] for key in tensors if (parts := split(key))}
    if not {"down", "up"} <= roles or not case["alpha"] or any(split(key) is None for key in tensors):
        pytest.skip("half an adapter, or none: the reference renames it, ours reads whole ones only")

    found = modules_in(tensors, {}, where="the case")

    alphas = {LAYOUTS["reference"].key(flat(name), "alpha"): float(w.alpha) for name, w in found.items()}
    assert alphas == pytest.approx(case["alpha"])


def _known(case: dict[str, Any]) -> set[str]:
    """Return the roles that the reference's version knows."""
    lycoris = {f"hada_w{i}_{half}" for i in (1, 2) for half in "ab"}
    lycoris |= {f"lokr_w{i}{half}" for i in (1, 2) for half in ("", "_a", "_b")}
    return {"down", "up", "alpha", *(lycoris if "head" in case["versions"] else ())}


def _tensor(key: str) -> torch.Tensor:
    """Return what the cases were made with: A (4, 3), others (5, 4), alpha 2."""
    if key.endswith(".alpha"):
        return torch.tensor(2.0)
    parts = split(key)
    return torch.ones(4, 3) if parts is not None and parts[1] == "down" else torch.ones(5, 4)


def _lora(rank: int, alpha: float, *, value: float = 1.0) -> LoRAWeights:
    return LoRAWeights(torch.full((rank, 3), value), torch.full((5, rank), value), torch.tensor(alpha))
