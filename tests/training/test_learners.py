from __future__ import annotations

import attrs
import pytest
import torch
from torch import Tensor, nn

from musubi.batch import Batch, collate
from musubi.testing.toy import Toy
from musubi.training.expert_adapters import ExpertAdapters
from musubi.training.learners import ByLevel, Learner, Learners
from tests.training.test_expert_adapters import adapters
from tests.two_experts import HIGH, LOW


@pytest.fixture
def used() -> list[str]:
    return []


@pytest.fixture
def both(used: list[str]) -> Learners:
    models = {"high": nn.Linear(1, 1), "low": nn.Linear(1, 1)}

    def use(name: str) -> nn.Module:
        used.append(name)
        return models[name]

    return Learners(
        all=tuple(Learner(expert=one, model=models[one.name], trained=adapters()) for one in (HIGH, LOW)), use=use
    )


def test_each_item_goes_to_the_expert_of_its_own_level(both: Learners, used: list[str]) -> None:
    parts = list(both.parts([0.9, 0.2, 0.75, 0.1]))

    assert [(part.items, part.share) for part in parts] == [((0, 2), 0.5), ((1, 3), 0.5)]
    assert [part.model for part in parts] == [one.model for one in both.all]
    assert used == ["high", "low"]


def test_a_batch_of_one_range_is_left_whole_and_the_other_expert_alone(both: Learners, used: list[str]) -> None:
    (part,) = both.parts([0.1, 0.3])

    assert (part.items, part.share) == (None, 1.0)
    assert used == ["low"]


def test_who_learns_alone_has_every_level(both: Learners) -> None:
    high, low = both.all
    alone = attrs.evolve(both, all=(attrs.evolve(high, trained=None), low))

    (part,) = alone.parts([0.99, 0.1])

    assert part.items is None
    assert part.model is low.model
    assert alone.responsible(0.99) is low.model
    assert alone.trained == (low,)


def test_all_experts_are_sampled_with_what_is_trained_on_them(both: Learners) -> None:
    high, low = both.all
    ready = attrs.evolve(both, all=(attrs.evolve(high, trained=None), low)).ready(Toy().denoiser())

    assert ready.at(0.9).model is high.model
    assert ready.at(0.9).adapters == ()
    assert ready.at(0.1).adapters == (low.trained,)


def test_a_loss_is_measured_on_the_expert_of_its_level(both: Learners) -> None:
    asked: list[nn.Module] = []

    @attrs.frozen
    class Loss:
        denoiser = Toy().denoiser()

        def loss_at(self, model: nn.Module, batch: Batch, sigma: Tensor, noise: Tensor) -> Tensor:
            asked.append(model)
            return sigma

    batch = collate([{"latents": torch.zeros(1)}], items=["a"], bucket="")
    by_level = ByLevel(Loss(), both)

    for level in (0.9, 0.1):
        by_level.loss_at(nn.Identity(), batch, torch.tensor([level]), torch.zeros(1))

    assert asked == [one.model for one in both.all]


def test_what_is_trained_on_each_is_found_by_its_name() -> None:
    own = {"high": adapters(), "low": adapters()}

    assert ExpertAdapters(own, rates={}).of("low") is own["low"]
