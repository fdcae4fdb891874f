from __future__ import annotations

import pytest
import torch

from musubi.core.errors import ConfigError, WeightsError
from musubi.networks.resize import Ranks, resized
from tests.networks.weighted import lora, weights_of

MODULES = {"blocks.0.q": lora(rank=5), "blocks.0.k": lora(rank=4, seed=1), "blocks.1.q": lora(rank=3, seed=2)}


def test_ranks_are_limited_and_never_raised() -> None:
    assert [weights.rank for weights in resized(MODULES, 4).values()] == [4, 4, 3]


def test_ranks_go_by_pattern_and_the_last_that_matches_counts() -> None:
    found = resized(MODULES, {r".*\.q": 2, r"blocks\.1\..*": 1})

    assert [weights.rank for weights in found.values()] == [2, 4, 1]
    assert found["blocks.0.k"] is MODULES["blocks.0.k"]


def test_every_module_keeps_its_share_of_the_norm() -> None:
    found = resized(MODULES, keep=0.9)

    for name, weights in found.items():
        assert weights.delta().norm() >= 0.9 * MODULES[name].delta().norm() * (1 - 1e-6)
        assert weights.rank <= MODULES[name].rank
    assert sum(w.rank for w in found.values()) < sum(w.rank for w in MODULES.values())


def test_a_limit_goes_before_a_share() -> None:
    assert max(weights.rank for weights in resized(MODULES, 2, keep=1.0).values()) == 2


@pytest.mark.parametrize("kind", ["loha", "lokr"])
def test_other_kinds_become_loras(kind: str) -> None:
    weights = weights_of(kind)

    (found,) = resized({"q": weights}, keep=1.0).values()

    assert found.kind == "lora"
    torch.testing.assert_close(found.delta(), weights.delta(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("rank", "keep", "message"),
    [
        (None, None, "rank: is missing"),
        (0, None, "rank: must be at least 1, got 0"),
        (None, 1.5, "keep: must be above 0 and at most 1, got 1.5"),
        ({r"blocks\.7\..*": 4}, None, "matches no module"),
        ({r"blocks.(": 4}, None, "is not a regular expression"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(rank: Ranks | None, keep: float | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resized(MODULES, rank, keep)


def test_modules_that_cannot_be_resized_are_all_named() -> None:
    with pytest.raises(WeightsError) as caught:
        resized({"a": weights_of("dora"), "b": lora(), "c": weights_of("dora")}, 2)

    assert [issue.path for issue in caught.value.issues] == ["a", "c"]
