from __future__ import annotations

import sys

import pytest
import torch

from musubi.core.errors import ConfigError
from musubi.optim.external import AdamW8bit, Lion, Prodigy, ProdigyPlusScheduleFree, ScheduleFreeAdamW, imported
from musubi.optim.optimizers import Optimizer
from musubi.optim.rates import effective_rates
from tests.optim.toy import Toy

SPECS: list[Optimizer] = [
    AdamW8bit(lr=0.01),
    Lion(lr=0.001),
    Prodigy(),
    ScheduleFreeAdamW(lr=0.01),
    ProdigyPlusScheduleFree(),
]
_PACKAGE = {
    "adamw_8bit": ("bitsandbytes.optim", "bitsandbytes"),
    "lion": ("lion_pytorch", "lion-pytorch"),
    "prodigy": ("prodigyopt", "prodigyopt"),
    "schedule_free_adamw": ("schedulefree", "schedulefree"),
    "prodigy_plus_schedule_free": ("prodigyplus", "prodigy-plus-schedule-free"),
}
_each = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)


@_each
def test_the_package_that_is_missing_is_named(spec: Optimizer, monkeypatch: pytest.MonkeyPatch) -> None:
    module, package = _PACKAGE[spec.kind]
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(ConfigError, match=rf"{package} is not installed.*pip install {package}, or .*\[optimizers\]"):
        Toy(spec)


@_each
def test_it_learns_without_a_word_on_the_screen(spec: Optimizer, capsys: pytest.CaptureFixture[str]) -> None:
    toy = Toy(spec.replace(weight_decay=0.01))
    for step in range(60):
        for parameter in toy.parameters:
            parameter.grad = parameter.detach().clone()  # of half the squared norm
        toy.optimizer.step()
        if step == 0:
            first = sum(float(value.norm()) for value in toy.values())

    assert sum(float(value.norm()) for value in toy.values()) < 0.99 * first
    assert capsys.readouterr().out == ""


@_each
def test_it_survives_toml(spec: Optimizer) -> None:
    assert Optimizer.from_toml(spec.to_toml()) == spec


@pytest.mark.parametrize(
    "spec", [Prodigy(), ScheduleFreeAdamW(), ProdigyPlusScheduleFree()], ids=lambda spec: spec.kind
)
def test_one_that_looks_at_all_parameters_cannot_work_during_backward(spec: Optimizer) -> None:
    with pytest.raises(ConfigError, match=rf"fused_backward: {spec.kind} looks at all parameters.*AdamW8bit"):
        spec.replace(fused_backward=True)


def test_large_tensors_have_moments_of_one_byte_and_small_ones_of_four() -> None:
    toy = Toy(AdamW8bit())

    toy.take(0, 1)

    large, small = (toy.optimizer.state[parameter]["state1"] for parameter in toy.parameters)
    assert (large.dtype, small.dtype) == (torch.uint8, torch.float32)
    assert large.shape == toy.parameters[0].shape


def test_a_lion_moves_every_weight_by_the_rate() -> None:
    toy = Toy(Lion(lr=0.01))
    before = toy.values()

    toy.take(0, 1)

    for now, then in zip(toy.values(), before, strict=True):
        torch.testing.assert_close((now - then).abs(), torch.full_like(then, 0.01))


def test_prodigy_takes_one_rate_for_all() -> None:
    with pytest.raises(ConfigError, match=r"lr: must be one for all parameters, but unet plus has its own.*LoRA\+"):
        Toy(Prodigy(), rates=(1.0, 16.0))
    assert Toy(Prodigy(), rates=(1.0, 0.0)).optimizer.param_groups[1]["lr"] == 0.0


def test_prodigys_estimate_grows_from_its_first() -> None:
    toy = Toy(Prodigy(d0=1e-5))
    for _ in range(30):
        for parameter in toy.parameters:
            parameter.grad = parameter.detach().clone()
        toy.optimizer.step()

    assert min(effective_rates(toy.optimizer).values()) > 1e-4


def test_prodigy_plus_estimates_by_group_and_multiplies_by_its_rate() -> None:
    groups = Toy(ProdigyPlusScheduleFree(), rates=(1.0, 16.0)).optimizer.param_groups

    assert [group["lr"] for group in groups] == [1.0, 16.0]
    assert all(group["split_groups"] for group in groups)


@pytest.mark.parametrize("spec", [ScheduleFreeAdamW, ProdigyPlusScheduleFree])
def test_averages_need_a_first_beta(spec: type[Optimizer]) -> None:
    with pytest.raises(ConfigError, match="betas: the first must be above 0"):
        spec(betas=(0.0, 0.99))  # type: ignore[call-arg]
    assert ProdigyPlusScheduleFree(betas=(0.0, 0.99), use_schedulefree=False).betas[0] == 0


def test_schedule_free_ones_set_their_own_rate() -> None:
    assert ScheduleFreeAdamW().own_schedule
    assert ProdigyPlusScheduleFree().own_schedule
    assert not ProdigyPlusScheduleFree(use_schedulefree=False).own_schedule
    assert not Prodigy().own_schedule


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        (Lion, {"lr": 0.0}),
        (Prodigy, {"lr": 0.0}),
        (Prodigy, {"d0": 0.0}),
        (Prodigy, {"growth_rate": 0.5}),
        (AdamW8bit, {"min_8bit_size": 1.5}),
        (ScheduleFreeAdamW, {"warmup_steps": -1}),
        (ProdigyPlusScheduleFree, {"eps": 0.0}),
    ],
)
def test_impossible_settings_are_refused(spec: type[Optimizer], values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        spec(**values)  # type: ignore[arg-type]


def test_a_class_of_a_package_is_found() -> None:
    assert imported("torch.optim", "SGD", package="torch") is torch.optim.SGD
