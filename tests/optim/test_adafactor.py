from __future__ import annotations

import pytest
import torch
from transformers.optimization import Adafactor as Original

from musubi.core.errors import ConfigError
from musubi.optim.adafactor import Adafactor
from musubi.optim.optimizers import Optimizer
from tests.optim.toy import Toy


@pytest.mark.parametrize(
    "options",
    [
        {"lr": 0.01},
        {"lr": 0.01, "scale_parameter": True, "beta1": 0.9, "weight_decay": 0.1},
        {"relative_step": True, "scale_parameter": True},
        {"relative_step": True, "warmup_init": True, "clip_threshold": 0.5},
    ],
)
def test_steps_are_those_of_transformers(options: dict[str, float]) -> None:
    toy, other = Toy(Adafactor(**options)), Toy(Adafactor())  # type: ignore[arg-type]
    given = {"lr": None, "relative_step": False, "scale_parameter": False, **options}
    other.optimizer = Original(other.parameters, **given)

    toy.take(0, 3)
    other.take(0, 3)

    assert all(torch.equal(mine, theirs) for mine, theirs in zip(toy.values(), other.values(), strict=True))


def test_a_groups_rate_multiplies_the_optimisers_own() -> None:
    toy = Toy(Adafactor(relative_step=True), rates=(1.0, 4.0))
    before = toy.values()

    toy.take(0, 1)

    slow, fast = ((now - then).norm() / then.numel() ** 0.5 for now, then in zip(toy.values(), before, strict=True))
    torch.testing.assert_close(slow, torch.tensor(0.01), rtol=0.1, atol=0)
    torch.testing.assert_close(fast, torch.tensor(0.04), rtol=0.1, atol=0)


def test_only_a_relative_step_is_a_schedule_of_its_own() -> None:
    assert not Adafactor(lr=1e-3).own_schedule
    assert Adafactor(relative_step=True).own_schedule


def test_a_warm_up_of_its_own_rate_needs_that_rate() -> None:
    with pytest.raises(ConfigError, match=r"warmup_init: is part of the optimiser's own rate.*relative_step=True"):
        Adafactor(warmup_init=True)


@pytest.mark.parametrize("values", [{"decay_rate": 0.8}, {"beta1": 1.0}, {"eps": (1e-30,)}, {"clip_threshold": 0.0}])
def test_impossible_settings_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        Adafactor(**values)  # type: ignore[arg-type]


def test_it_survives_toml() -> None:
    spec = Adafactor(relative_step=True, beta1=0.9, eps=(1e-20, 1e-2), fused_backward=True)

    assert Optimizer.from_toml(spec.to_toml()) == spec
