from __future__ import annotations

import pytest
import torch
from torch import nn

from musubi.core.errors import ConfigError
from musubi.optim.custom import CustomOptimizer
from musubi.optim.external import Prodigy, ProdigyPlusScheduleFree, ScheduleFreeAdamW
from musubi.optim.optimizers import AdamW, Optimizer, TorchGroup
from musubi.optim.separate import SeparateSteps
from musubi.parameters import ParameterGroup
from tests.optim.toy import Toy


def _group(parameter: nn.Parameter, name: str = "unet", rate: float = 1.0) -> ParameterGroup:
    return ParameterGroup(name=name, parameters=(parameter,), rate=rate)


def _steps(spec: AdamW, count: int = 3) -> torch.Tensor:
    parameter = nn.Parameter(torch.ones(4))
    optimizer = spec.build([_group(parameter)])
    for step in range(count):
        parameter.grad = torch.arange(4.0) - step
        optimizer.step()
    return parameter.detach()


def test_the_first_step_is_the_learning_rate_against_the_gradients_sign() -> None:
    moved = _steps(AdamW(lr=0.1, weight_decay=0.0), 1)

    torch.testing.assert_close(moved, torch.tensor([1.0, 0.9, 0.9, 0.9]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fused", [False, True])
def test_steps_are_those_of_torch_bit_for_bit(dtype: torch.dtype, *, fused: bool) -> None:
    toy = Toy(AdamW(lr=0.01, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1, fused=fused), dtype=dtype)
    plain = Toy(AdamW(), dtype=dtype)
    plain.optimizer = torch.optim.AdamW(
        plain.parameters, lr=0.01, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1, foreach=False, fused=fused
    )

    toy.take(0, 5)
    plain.take(0, 5)

    assert all(torch.equal(mine, theirs) for mine, theirs in zip(toy.values(), plain.values(), strict=True))


def test_a_learning_rate_of_zero_changes_nothing() -> None:
    assert torch.equal(_steps(AdamW(lr=0.0)), torch.ones(4))


def test_steps_repeat_bit_by_bit_and_fusing_changes_only_the_last_ones() -> None:
    spec = AdamW(lr=0.01)

    assert torch.equal(_steps(spec), _steps(spec))
    torch.testing.assert_close(_steps(spec.replace(fused=True)), _steps(spec))


def test_torchs_groups_have_names_and_their_multiple_of_the_rate() -> None:
    toy = Toy(AdamW(lr=0.01), rates=(1.0, 16.0))

    assert [(group["name"], group["lr"]) for group in toy.optimizer.param_groups] == [
        ("unet", 0.01),
        ("unet plus", 0.16),
    ]


def test_a_group_moves_as_fast_as_its_rate_says() -> None:
    toy = Toy(AdamW(lr=0.01, weight_decay=0.0), rates=(1.0, 4.0))
    before = toy.values()

    toy.take(0, 1)

    slow, fast = ((now - then).abs().median() for now, then in zip(toy.values(), before, strict=True))
    torch.testing.assert_close(fast / slow, torch.tensor(4.0), rtol=1e-3, atol=0)


def test_empty_groups_are_left_out_and_nothing_at_all_is_refused() -> None:
    full, empty = _group(nn.Parameter(torch.ones(1))), ParameterGroup(name="empty", parameters=())

    assert [group["name"] for group in AdamW().build([empty, full]).param_groups] == ["unet"]
    with pytest.raises(ConfigError, match="AdamW: there is no parameter to train"):
        AdamW().build([empty])


def test_what_torch_does_not_take_is_an_error_of_the_spec() -> None:
    parameter = nn.Parameter(torch.ones(1))

    with pytest.raises(ConfigError, match="AdamW: was refused: some parameters appear in more than one"):
        AdamW().build([_group(parameter), _group(parameter, "again")])


def test_what_torch_does_not_take_names_the_field_if_it_can() -> None:
    class Picky(AdamW):
        def make(self, groups: list[TorchGroup]) -> torch.optim.Optimizer:
            raise ValueError("this weight_decay is too large")

    with pytest.raises(ConfigError, match="Picky: weight_decay: was refused: this weight_decay is too large"):
        Picky().build([_group(nn.Parameter(torch.ones(1)))])


@pytest.mark.parametrize(
    ("dtype", "fused_backward", "separate"),
    [
        (torch.float32, False, False),
        (torch.float32, True, True),
        (torch.bfloat16, False, True),
    ],
)
def test_steps_are_separate_only_where_they_must_be(
    dtype: torch.dtype, *, fused_backward: bool, separate: bool
) -> None:
    toy = Toy(AdamW(fused_backward=fused_backward), dtype=dtype)

    assert isinstance(toy.optimizer, SeparateSteps) == separate


@pytest.mark.parametrize("spec", [CustomOptimizer(name="RAdam", lr=1e-5), ScheduleFreeAdamW(lr=1e-5), Prodigy()])
def test_one_that_loses_small_updates_of_bfloat16_weights_says_so(
    spec: Optimizer, caplog: pytest.LogCaptureFixture
) -> None:
    Toy(spec)
    assert caplog.text == ""

    Toy(spec, dtype=torch.bfloat16)

    assert f"{spec.kind} updates bfloat16 weights in bfloat16" in caplog.text


@pytest.mark.parametrize("spec", [AdamW(lr=1e-5, weight_decay=0.0), ProdigyPlusScheduleFree(d0=1e-5)])
def test_one_that_rounds_stochastically_moves_bfloat16_weights_without_a_warning(
    spec: Optimizer, caplog: pytest.LogCaptureFixture
) -> None:
    toy = Toy(spec, dtype=torch.bfloat16)
    before = toy.values()

    toy.take(0, 20)

    assert caplog.text == ""
    assert not torch.equal(toy.values()[0], before[0])


def test_an_optimizer_survives_toml() -> None:
    spec = AdamW(lr=3e-5, betas=(0.9, 0.99), weight_decay=0.0, fused_backward=True)

    assert Optimizer.from_toml(spec.to_toml()) == spec


@pytest.mark.parametrize("values", [{"lr": -1.0}, {"betas": (0.9, 1.0)}, {"eps": -1e-8}])
def test_impossible_settings_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        AdamW.from_dict(values)
