from __future__ import annotations

import pytest

from musubi.optim.adafactor import Adafactor
from musubi.optim.external import ProdigyPlusScheduleFree, ScheduleFreeAdamW
from musubi.optim.optimizers import AdamW, Optimizer
from musubi.optim.own_schedule import schedule_issue
from musubi.optim.schedules import Constant, Cosine

OWN = [Adafactor(relative_step=True), ScheduleFreeAdamW(), ProdigyPlusScheduleFree()]


@pytest.mark.parametrize("optimizer", OWN, ids=lambda spec: spec.kind)
@pytest.mark.parametrize("schedule", [Cosine(), Constant(warmup=10), Constant(warmup=0.1)], ids=repr)
def test_an_optimiser_with_its_own_rate_takes_no_schedule(optimizer: Optimizer, schedule: Constant | Cosine) -> None:
    issue = schedule_issue(optimizer, schedule)

    assert issue is not None
    assert issue.path == "schedule"
    assert f"{optimizer.kind} sets its learning rate itself" in issue.message


@pytest.mark.parametrize("optimizer", OWN, ids=lambda spec: spec.kind)
def test_a_constant_rate_fits_all(optimizer: Optimizer) -> None:
    assert schedule_issue(optimizer, Constant()) is None


@pytest.mark.parametrize("optimizer", [AdamW(), Adafactor(), ProdigyPlusScheduleFree(use_schedulefree=False)])
def test_an_optimiser_that_follows_takes_any_schedule(optimizer: Optimizer) -> None:
    assert schedule_issue(optimizer, Cosine(warmup=0.1)) is None
