from __future__ import annotations

import torch

from musubi.networks import facts
from tests.networks.weighted import lora, weights_of


def test_what_the_adapters_are_is_told_before_what_the_metadata_say() -> None:
    modules = {"a": lora(rank=4, alpha=2.0), "b": lora(rank=4, alpha=2.0), "c": lora(rank=2, alpha=2.0)}

    found = dict(facts.of(modules, {"ss_steps": "1600", "ss_seed": "", "ss_x": "y"}, "comfy"))

    assert found["ranks"] == "4 (2x), 2 (1x)"
    assert found["alpha / rank"] == "0.5 (2x), 1.0 (1x)"
    assert found["precision"] == "float32"
    assert found["parameters"] == f"{2 * 4 * 14 + 2 * 14}"
    assert list(found)[-1] == "steps"


def test_kinds_and_precisions_that_are_mixed_are_all_told() -> None:
    found = dict(facts.of({"a": weights_of("loha"), "b": lora().to(torch.bfloat16)}, {}, None))

    assert found["kind"] == "loha, lora"
    assert found["precision"] == "float32 (1x), bfloat16 (1x)"
    assert found["layout"] == "none yet"


def test_long_values_are_cut() -> None:
    found = dict(facts.of({"a": lora()}, {"ss_optimizer": "x" * 500}, "comfy"))

    assert len(found["optimiser"]) == 80


def test_rank_and_alpha_of_a_resized_file_are_one_number_or_dynamic() -> None:
    same = facts.resized({"ss_network_dim": "32"}, {"a": lora(rank=2), "b": lora(rank=2)})
    mixed = facts.resized({}, {"a": lora(rank=2, alpha=2.0), "b": lora(rank=3, alpha=3.0)})

    assert (same["ss_network_dim"], same["ss_network_alpha"]) == ("2", "2.0")
    assert (mixed["ss_network_dim"], mixed["ss_network_alpha"]) == ("Dynamic", "Dynamic")
