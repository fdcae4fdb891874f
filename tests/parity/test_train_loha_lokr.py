"""LoHa and LoKr have the reference's tensors, factors and deltas."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from musubi.networks.loha import LoHa
from musubi.networks.lokr import LoKr
from musubi.networks.lokr_layer import factors
from musubi.networks.network import AdapterNetwork
from musubi.networks.reading import modules_in
from tests.parity.cases import vector, vector_stems
from tests.parity.lora_arguments import BLOCKS, create_adapters, targets_of, without_idle
from tests.parity.tiny_models import model_configs, tiny_model

CASES = [case for stem in vector_stems("train_loha_lokr") for case in vector(stem)["cases"]]
CONFIGS = model_configs()


def _each(*kinds: str | None) -> pytest.MarkDecorator:
    cases = [case for case in CASES if case.get("kind") in kinds]
    return pytest.mark.parametrize("case", cases, ids=[case["id"] for case in cases])


@_each(None)
def test_train_loha_lokr_modules_and_shapes_equal_the_reference(case: dict[str, Any]) -> None:
    if case["arch"] not in CONFIGS:
        pytest.skip(f"the vectors of train_lora_keys have no model of {case['arch']} to build")
    tiny = tiny_model(case["arch"], CONFIGS[case["arch"]])
    targets = without_idle(targets_of(case["network_args"], ""), tiny)  # they keep the usual exclusions
    network: AdapterNetwork
    if case["network"] == "loha":
        network = LoHa(rank=case["dim"], alpha=case["alpha"], targets=targets)
    else:
        factor = int(case["network_args"].get("factor", -1))
        network = LoKr(rank=case["dim"], alpha=case["alpha"], factor=factor, targets=targets)

    adapters = create_adapters(network, tiny)

    file = adapters.to_file()
    listed = [[n, list(t.shape)] for n, t in file.tensors("reference").items()]
    wanted = sorted(case["keys_block0"])
    assert sorted(pair for pair in listed if pair[0] in {name for name, _ in wanted}) == wanted
    inside = [weights for name, weights in file.modules.items() if BLOCKS.match(name)]
    assert len(inside) == case["n_modules"]
    assert sum(weights.numel for weights in inside) == case["n_trainable"]


@_each("lokr_factorization")
def test_train_loha_lokr_factors_equal_the_reference(case: dict[str, Any]) -> None:
    assert list(factors(case["dimension"], case["factor"])) == case["result"]


@_each(*{case.get("kind") for case in CASES if str(case.get("kind")).endswith("merge") or "merged" in case})
def test_train_loha_lokr_merged_weights_equal_the_reference(case: dict[str, Any]) -> None:
    tensors = {f"m.{name}": torch.tensor(value) for name, value in case.items() if name.startswith(("hada_", "lokr_"))}
    alpha = {} if case.get("alpha") is None else {"m.alpha": torch.tensor(float(case["alpha"]))}
    weights = modules_in({**tensors, **alpha}, {}, where="case")["m"]

    merged = weights.merged(torch.tensor(case["W"]), case["multiplier"])

    torch.testing.assert_close(merged, torch.tensor(case["merged"]), rtol=1e-5, atol=1e-6)


def test_train_loha_lokr_every_kind_is_compared() -> None:
    assert all(case.get("kind") in {None, "lokr_factorization"} or "merged" in case for case in CASES)
