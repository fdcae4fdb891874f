from __future__ import annotations

import pytest
import torch

from musubi.core.errors import ConfigError, WeightsError
from musubi.networks.combine import combined, shared_metadata
from tests.networks.weighted import lora, weights_of


def test_the_sum_of_loras_is_exact() -> None:
    first, second = {"q": lora(alpha=1.0), "k": lora(seed=3)}, {"q": lora(rank=2, seed=1), "v": lora(seed=2)}

    found = combined([(first, 0.5), (second, 2.0)])

    assert {name: weights.rank for name, weights in found.items()} == {"q": 5, "k": 3, "v": 3}
    torch.testing.assert_close(found["q"].delta(), 0.5 * first["q"].delta() + 2 * second["q"].delta())
    torch.testing.assert_close(found["k"].delta(), 0.5 * first["k"].delta())
    torch.testing.assert_close(found["v"].delta(), 2 * second["v"].delta())


def test_a_sum_that_cancels_has_no_effect() -> None:
    (found,) = combined([({"q": lora()}, 1.0), ({"q": lora()}, -1.0)]).values()

    torch.testing.assert_close(found.delta(), torch.zeros(6, 8), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["loha", "lokr"])
def test_kinds_may_be_mixed_where_a_size_is_given(kind: str) -> None:
    first, second = weights_of(kind), lora()

    (found,) = combined([({"q": first}, 0.5), ({"q": second}, 1.0)], keep=1.0).values()

    torch.testing.assert_close(found.delta(), 0.5 * first.delta() + second.delta(), rtol=1e-4, atol=1e-5)


def test_a_sum_of_a_size_is_the_nearest_of_that_size() -> None:
    first, second = lora(12, 10), lora(12, 10, seed=1)

    (found,) = combined([({"q": first}, 1.0), ({"q": second}, 1.0)], rank=2).values()

    total = first.delta() + second.delta()
    left = torch.linalg.svdvals(total)[2:].norm()
    assert found.rank == 2
    torch.testing.assert_close((found.delta() - total).norm(), left, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (lora(6, 8), lora(6, 9), "has different shapes"),
        (weights_of("loha"), weights_of("loha"), "give rank="),
        (lora(), weights_of("lokr"), "is lokr, lora, whose sum is no LoRA"),
        (weights_of("dora"), lora(), "is a DoRA"),
    ],
)
def test_what_does_not_add_up_is_named(first: object, second: object, message: str) -> None:
    with pytest.raises(WeightsError, match=f"q: .*{message}"):
        combined([({"q": first}, 1.0), ({"q": second}, 1.0)])  # type: ignore[dict-item]


@pytest.mark.parametrize("kind", ["dora", "loha", "lokr"])
def test_a_module_of_one_file_only_stays_of_its_kind(kind: str) -> None:
    weights = weights_of(kind)

    found = combined([({"q": weights}, 1.0), ({"k": lora()}, 1.0)])

    assert found["q"] is weights


def test_a_dora_is_neither_weakened_nor_resized() -> None:
    decomposed = weights_of("dora")

    for weight, rank in ((0.5, None), (1.0, 1)):
        with pytest.raises(WeightsError, match="q: is a DoRA, which does not add up"):
            combined([({"q": decomposed}, weight), ({"k": lora()}, 1.0)], rank=rank)


def test_a_size_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="rank: must be at least 1"):
        combined([({"q": lora()}, 1.0), ({"q": lora()}, 1.0)], rank=0)


def test_metadata_are_kept_where_all_agree() -> None:
    first = {"ss_base_model_version": "wan", "modelspec.title": "one", "ss_seed": "1"}
    second = {"ss_base_model_version": "wan", "modelspec.title": "two"}

    assert shared_metadata([first, second]) == {"ss_base_model_version": "wan", "modelspec.merged_from": "one, two"}
    assert shared_metadata([first]) == first
