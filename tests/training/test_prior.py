from __future__ import annotations

import pytest
import torch

from musubi import Cache, ConfigError, LoRA, PriorPreservation
from musubi.testing.toy import Toy
from musubi.training.prior import untrained
from tests.networks.small import Small, make_set, trained


def test_inside_the_block_the_model_predicts_as_before_training_and_without_dropout() -> None:
    model, x = Small(), torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    before, adapters = model(x), trained(make_set(model, LoRA(rank=2, dropout=0.5)))

    with adapters.attached(model):
        assert not torch.allclose(model(x), before)
        with untrained(adapters):
            assert torch.equal(model(x), before)
            assert not adapters.training
        assert not torch.allclose(model(x), before)

    assert adapters.training


@pytest.mark.parametrize("training", [True, False])
def test_afterwards_the_adapters_are_as_they_were_also_after_an_error(training: bool) -> None:
    adapters = make_set(Small()).train(training)
    adapters.weight = 0.5

    with pytest.raises(ZeroDivisionError), untrained(adapters):
        raise ZeroDivisionError

    assert (adapters.training, adapters.weight) == (training, 0.5)


@pytest.mark.parametrize(("values", "path"), [({"weight": 0.0}, "weight"), ({"target": "both"}, "target")])
def test_impossible_values_are_refused(cache: Cache[Toy], values: dict[str, object], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PriorPreservation(cache=cache).replace(**values)

    assert [issue.path for issue in caught.value.issues] == [path]
