from __future__ import annotations

import pytest
import torch

from musubi.core.errors import ConfigError
from musubi.optim.optimizers import AdamW, Optimizer


def _steps(spec: AdamW, count: int = 3) -> torch.Tensor:
    parameter = torch.nn.Parameter(torch.ones(4))
    optimizer = spec.build([parameter])
    for step in range(count):
        parameter.grad = torch.arange(4.0) - step
        optimizer.step()
    return parameter.detach()


def test_the_first_step_is_the_learning_rate_against_the_gradients_sign() -> None:
    moved = _steps(AdamW(lr=0.1, weight_decay=0.0), 1)

    torch.testing.assert_close(moved, torch.tensor([1.0, 0.9, 0.9, 0.9]))


def test_a_learning_rate_of_zero_changes_nothing() -> None:
    assert torch.equal(_steps(AdamW(lr=0.0)), torch.ones(4))


def test_steps_repeat_bit_by_bit_and_fusing_changes_only_the_last_ones() -> None:
    spec = AdamW(lr=0.01)

    assert torch.equal(_steps(spec), _steps(spec))
    torch.testing.assert_close(_steps(spec.replace(fused=True)), _steps(spec))


def test_an_optimizer_survives_toml() -> None:
    spec = AdamW(lr=3e-5, betas=(0.9, 0.99), weight_decay=0.0)

    assert Optimizer.from_toml(spec.to_toml()) == spec


@pytest.mark.parametrize("values", [{"lr": -1.0}, {"betas": (0.9, 1.0)}, {"eps": -1e-8}])
def test_impossible_settings_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        AdamW.from_dict(values)
