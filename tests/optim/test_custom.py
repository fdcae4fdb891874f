from __future__ import annotations

import pytest
import torch

from musubi.core.errors import ConfigError
from musubi.optim.custom import CustomOptimizer
from musubi.optim.optimizers import Optimizer
from tests.optim.toy import Toy


class Halving(torch.optim.Optimizer):
    """Halve every parameter; a class that a user wrote."""

    def __init__(self, groups: list[dict[str, object]], *, lr: float) -> None:
        super().__init__(groups, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.mul_(0.5)


def test_a_class_of_torch_is_found_by_its_name_and_gets_its_arguments() -> None:
    optimizer = Toy(CustomOptimizer(name="SGD", lr=0.1, arguments={"momentum": 0.9})).optimizer

    assert isinstance(optimizer, torch.optim.SGD)
    assert [(g["lr"], g["momentum"], g["foreach"]) for g in optimizer.param_groups] == [(0.1, 0.9, False)] * 2


def test_a_class_of_any_package_is_found_by_its_dotted_name() -> None:
    toy = Toy(CustomOptimizer(name="schedulefree.SGDScheduleFree", lr=1.0))
    before = toy.values()

    toy.take(0, 2)

    assert not torch.equal(toy.values()[0], before[0])


def test_a_class_itself_will_do() -> None:
    spec = CustomOptimizer(name=Halving, lr=1.0)  # type: ignore[arg-type]
    toy = Toy(spec)
    before = toy.values()

    toy.take(0, 1)

    assert spec.name.endswith("test_custom.Halving")
    assert torch.equal(toy.values()[0], before[0] / 2)


def test_a_class_inside_a_function_cannot_be_named() -> None:
    class Mine(torch.optim.SGD):
        pass

    with pytest.raises(ConfigError, match="name: must be a class of a module, not one inside a function"):
        CustomOptimizer(name=Mine)  # type: ignore[arg-type]


def test_a_file_may_name_a_class_only_with_the_programs_leave() -> None:
    spec = CustomOptimizer(name="RAdam", lr=0.1, arguments={"betas": (0.9, 0.99), "decoupled_weight_decay": True})
    text = spec.to_toml()

    with pytest.raises(ConfigError, match=r"no optimizer is called 'custom' .*plugins=\[CustomOptimizer\]"):
        Optimizer.from_toml(text)
    assert Optimizer.from_toml(text, plugins=[CustomOptimizer]) == spec


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Adam8000", r"torch\.optim has no class Adam8000"),
        ("AdamV", r"did you mean 'Adam"),
        ("nowhere.at.All", r"name: nowhere\.at\.All cannot be imported: No module named 'nowhere'"),
        ("pathlib.Path", r"pathlib\.Path is no torch\.optim\.Optimizer"),
        ("math.pi", r"math has no class pi"),
        ("LBFGS", r"LBFGS computes the loss itself"),
    ],
)
def test_what_cannot_be_used_is_named(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Toy(CustomOptimizer(name=name))


@pytest.mark.parametrize("name", ["", "a b", "torch.", "import"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="name: must be a class, or the name of one"):
        CustomOptimizer(name=name)


def test_arguments_that_the_class_does_not_take_are_named() -> None:
    with pytest.raises(ConfigError, match=r"arguments: SGD refuses them: .*unexpected keyword argument 'momentun'"):
        Toy(CustomOptimizer(name="SGD", arguments={"momentun": 0.9}))


@pytest.mark.parametrize("arguments", [{"betas": {0.9}}, {"hook": print}, ["momentum"]])
def test_arguments_are_what_a_file_can_hold(arguments: object) -> None:
    with pytest.raises(ConfigError, match="arguments: "):
        CustomOptimizer(name="SGD", arguments=arguments)  # type: ignore[arg-type]


def test_it_sets_its_own_rate_where_the_user_or_its_name_says_so() -> None:
    assert CustomOptimizer(name="schedulefree.RAdamScheduleFree").own_schedule
    assert CustomOptimizer(name="SGD", sets_own_rate=True).own_schedule
    assert not CustomOptimizer(name="SGD").own_schedule
