"""Initial draw, forward pass and merge of a LoRA give the reference's numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from musubi import AdamW
from musubi.networks.adapters import Adapter, AdapterSet
from musubi.networks.lora import LoRA
from musubi.networks.lora_layer import LoRALayer
from musubi.networks.norms import limit_norms
from musubi.networks.targets import Targets
from musubi.networks.weights import LoRAWeights
from tests.parity.cases import vector, vector_stems

CASES = [case for stem in vector_stems("train_numerics") for case in vector(stem)["cases"]]
HERE = {"lora_forward_merge", "lora_init", "lora_defaults", "max_norm", "loraplus", "lora_filter"}
ELSEWHERE = {
    "qwen_extract": "extract",
    "adafactor_fused_fp32": "adafactor",
    "hv_sample_schedule": "misc",
    "flux_sample_schedule": "misc",
    "shift_mu": "misc",
    "loss_recorder": "misc",
    "caption_resize": "misc",
}
"""Kinds that ``test_train_numerics_<name>.py`` compares."""


def _each(kind: str) -> pytest.MarkDecorator:
    cases = [case for case in CASES if case["kind"] == kind]
    return pytest.mark.parametrize("case", cases, ids=[case["id"] for case in cases])


@_each("lora_forward_merge")
def test_train_numerics_forward_and_merge_equal_the_reference(case: dict[str, Any]) -> None:
    base, bias, down, up, x = (torch.tensor(case[key]) for key in ("W", "b", "down", "up", "x"))
    alpha = case["rank"] if case["alpha"] is None else case["alpha"]
    weights = LoRAWeights(down, up, torch.tensor(float(alpha)))
    layer = LoRALayer(down.shape[1], (up.shape[0],), rank=case["rank"], alpha=float(alpha))
    layer.load(weights)

    live = torch.nn.functional.linear(x, base, bias) + case["multiplier"] * layer.delta(x)
    merged = base + case["multiplier"] * weights.delta()

    assert weights.strength == case["scale"]
    assert float(layer.weights().alpha) == case["saved_alpha"]
    torch.testing.assert_close(live, torch.tensor(case["y"]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        torch.nn.functional.linear(x, merged, bias), torch.tensor(case["y"]), rtol=1e-5, atol=1e-6
    )
    for key in case.keys() & {"merged", "W_merged", "merged_W"}:
        torch.testing.assert_close(merged, torch.tensor(case[key]), rtol=1e-5, atol=1e-6)


@_each("lora_init")
def test_train_numerics_the_initial_draw_is_the_references(case: dict[str, Any]) -> None:
    layer = LoRALayer(case["in_features"], (8,), rank=case["rank"], alpha=1.0)
    layer.draw(torch.Generator().manual_seed(0))

    assert not layer.up.any()
    assert layer.down.abs().max() <= case["bound"]
    assert math.isclose(float(layer.down.detach().std()), case["observed_std"], rel_tol=0.02)


@_each("lora_defaults")
def test_train_numerics_an_alpha_of_one_has_the_references_strength(case: dict[str, Any]) -> None:
    # The reference's defaults are rank 4 and alpha 1; ours is alpha = rank, so alpha is given here.
    alpha = 1.0 if case["network_alpha"] is None else case["network_alpha"]
    network = LoRA(rank=case["network_dim"] or 4, alpha=alpha)

    assert (network.rank, network.strength) == (case["rank"], case["scale"])


@_each("max_norm")
def test_train_numerics_a_norm_limit_scales_as_the_reference(case: dict[str, Any]) -> None:
    down, up = (torch.tensor(case[key]) for key in ("down", "up"))
    layer = LoRALayer(down.shape[1], (up.shape[0],), rank=case["rank"], alpha=case["alpha"])
    layer.load(LoRAWeights(down, up, torch.tensor(case["alpha"])))

    found = limit_norms([layer], case["max_norm"])

    result = case["result"]
    assert found.scaled == result["keys_scaled"]
    # The reference reports at least half the limit for norms below that.
    assert max(found.largest, case["max_norm"] / 2) == pytest.approx(result["max"], rel=1e-5)
    torch.testing.assert_close(layer.down.detach(), torch.tensor(case["down_after"]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(layer.up.detach(), torch.tensor(case["up_after"]), rtol=1e-5, atol=1e-6)


@_each("loraplus")
def test_train_numerics_parameter_groups_are_the_references(case: dict[str, Any]) -> None:
    modules = sum(group["n_tensors"] for group in case["groups"]) // 2
    layers = (Adapter(f"m{i}", (f"m{i}",), LoRALayer(2, (2,), rank=1, alpha=1.0)) for i in range(modules))
    adapters = AdapterSet(layers, plus_ratio=case["ratio"] or 1.0)

    optimizer = AdamW(lr=case["lr"]).build(adapters.groups())

    found = [(group["lr"], len(group["params"]), group["name"]) for group in optimizer.param_groups]
    wanted = [(g["lr"], g["n_tensors"], d) for g, d in zip(case["groups"], case["descriptions"], strict=True)]
    assert found == [(pytest.approx(lr), count, name) for lr, count, name in wanted]


@_each("lora_filter")
def test_train_numerics_patterns_keep_what_the_reference_keeps(case: dict[str, Any]) -> None:
    """The reference searches its flat names for a pattern; ours must match a whole name."""
    everything = sorted({name for other in CASES if other["kind"] == "lora_filter" for name in other["kept"]})
    anywhere = {key: f".*(?:{case[key]}).*" for key in ("include", "exclude") if case[key] is not None}
    default = [anywhere.get("include", ".*")]

    kept = Targets(exclude=tuple(anywhere[k] for k in anywhere if k == "exclude")).choose(everything, default=default)

    assert sorted(kept) == case["kept"]


def test_train_numerics_every_kind_is_compared() -> None:
    folder = Path(__file__).parent

    assert {case["kind"] for case in CASES} <= HERE | ELSEWHERE.keys()
    assert all((folder / f"test_train_numerics_{name}.py").exists() for name in set(ELSEWHERE.values()))
