from __future__ import annotations

import pytest

from musubi.optim.adafactor import Adafactor
from musubi.optim.external import Prodigy, ProdigyPlusScheduleFree, ScheduleFreeAdamW
from musubi.optim.optimizers import AdamW
from musubi.optim.rates import effective_rates
from tests.optim.toy import Toy


@pytest.mark.parametrize("fused_backward", [False, True])
def test_a_groups_rate_goes_by_its_name(*, fused_backward: bool) -> None:
    toy = Toy(AdamW(lr=0.01, fused_backward=fused_backward), rates=(1.0, 16.0))
    toy.optimizer.param_groups[0]["lr"] = 0.005

    assert effective_rates(toy.optimizer) == {"unet": 0.005, "unet plus": 0.16}


def test_prodigys_rate_is_multiplied_by_its_estimate() -> None:
    toy = Toy(Prodigy(lr=0.5, d0=1e-4))

    assert effective_rates(toy.optimizer) == {"unet": 5e-5, "unet plus": 5e-5}


@pytest.mark.parametrize("mean", [False, True])
def test_prodigy_plus_has_an_estimate_for_each_group_or_their_mean(*, mean: bool) -> None:
    toy = Toy(ProdigyPlusScheduleFree(split_groups_mean=mean), rates=(1.0, 2.0))
    toy.take(0, 4)
    groups = toy.optimizer.param_groups
    shared = 2 / sum(1 / group["d"] for group in groups)  # the harmonic mean

    wanted = [group["lr"] * (shared if mean else group["d"]) for group in groups]

    assert list(effective_rates(toy.optimizer).values()) == pytest.approx(wanted)
    assert groups[0]["d"] != groups[1]["d"]


def test_the_warm_up_of_schedule_free_adamw_shows() -> None:
    toy = Toy(ScheduleFreeAdamW(lr=0.01, warmup_steps=4))

    before = effective_rates(toy.optimizer)["unet"]
    toy.take(0, 1)

    assert before == 0.01
    assert effective_rates(toy.optimizer)["unet"] == pytest.approx(0.0025)


@pytest.mark.parametrize("fused_backward", [False, True])
def test_adafactors_own_rate_is_that_of_its_first_parameter(*, fused_backward: bool) -> None:
    toy = Toy(Adafactor(relative_step=True, fused_backward=fused_backward), rates=(1.0, 4.0))

    before = effective_rates(toy.optimizer)
    toy.take(0, 1)

    assert before == {"unet": 0.0, "unet plus": 0.0}
    assert effective_rates(toy.optimizer) == pytest.approx({"unet": 0.01, "unet plus": 0.04})


def test_groups_without_a_name_are_counted() -> None:
    toy = Toy(AdamW(lr=0.01))
    for group in toy.optimizer.param_groups:
        del group["name"]

    assert list(effective_rates(toy.optimizer)) == ["group0", "group1"]
