"""Going on is the same as never having stopped: for every optimiser and schedule, and however a run was stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from musubi import (
    EMA,
    Adafactor,
    AdamW,
    AdamW8bit,
    Cache,
    Constant,
    Cosine,
    CosineRestarts,
    CustomOptimizer,
    DoRA,
    InverseSqrt,
    Linear,
    Lion,
    LoHa,
    LoKr,
    LoRA,
    PiecewiseConstant,
    Polynomial,
    Prodigy,
    ProdigyPlusScheduleFree,
    Rex,
    ScheduleFreeAdamW,
    StepEnded,
    TorchSchedule,
    Trainer,
    WarmupStableDecay,
)
from musubi.networks.network import Network
from musubi.optim.optimizers import Optimizer
from musubi.optim.schedules import Schedule
from musubi.testing.toy import Toy
from musubi.training.state import RunState, latest

STEPS, STOP = 9, 3
OPTIMIZERS: tuple[Optimizer, ...] = (
    AdamW(lr=1e-2),
    AdamW(lr=1e-2, fused=True),
    AdamW(lr=1e-2, fused_backward=True),
    AdamW8bit(lr=1e-2),
    Adafactor(lr=1e-2),
    Adafactor(relative_step=True, scale_parameter=True),
    Adafactor(lr=1e-2, fused_backward=True, beta1=0.9),
    Lion(lr=1e-3),
    Prodigy(),
    ScheduleFreeAdamW(lr=1e-2, warmup_steps=2),
    ProdigyPlusScheduleFree(),
    CustomOptimizer(name="NAdam", lr=1e-2),
)
SCHEDULES: tuple[Schedule, ...] = (
    Constant(warmup=2),
    Cosine(warmup=0.2, min_ratio=0.1),
    CosineRestarts(cycles=2),
    InverseSqrt(warmup=2),
    Linear(),
    PiecewiseConstant(pieces=((1.0, 4), (0.5, 6)), last=0.1),
    Polynomial(power=2),
    Rex(warmup=3),
    WarmupStableDecay(warmup=2, decay=0.3),
    TorchSchedule(name="StepLR", arguments={"step_size": 2, "gamma": 0.5}),
)
NETWORKS: tuple[Network, ...] = (
    LoRA(rank=4, dropout=0.2, rank_dropout=0.1, module_dropout=0.1, plus_ratio=4, max_norm=0.5),
    DoRA(rank=2, dropout=0.1),
    LoHa(rank=2, rank_dropout=0.1),
    LoKr(rank=2, factor=4, module_dropout=0.1),
)
RUN = """
import signal, sys
from musubi import CustomOptimizer, StepEnded, TorchSchedule, Trainer
from musubi.testing.toy import Toy

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
trainer = Trainer.load(sys.argv[1], plugins=[Toy, CustomOptimizer, TorchSchedule])
def tell(event):
    if isinstance(event, StepEnded):
        print(event.step, flush=True)
        if event.step == 4:
            __import__("time").sleep(3)
trainer.run(on=[tell], progress=False)
print("ended", flush=True)
"""


def same(one: Path, other: Path) -> bool:
    """Return whether two states hold the same weights, averages, losses and rates, bit for bit."""
    first, second = RunState.load(one), RunState.load(other)
    pairs = [(first.trained, second.trained), (first.averages, second.averages)]
    tensors = all(a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a) for a, b in pairs)
    return tensors and (first.step, first.losses, first.rates) == (second.step, second.losses, second.rates)


def stopped(trainer: Trainer[Toy], step: int) -> Path:
    """Run to a step, stop there and return the state."""
    with trainer.start() as run:
        for event in run:
            if isinstance(event, StepEnded) and event.step == step:
                run.cancel()
    return run.result.state


@pytest.fixture
def small(cache: Cache[Toy], tmp_path: Path) -> Trainer[Toy]:
    return Trainer(model=Toy(), cache=cache, steps=STEPS, output=tmp_path / "whole", seed=1, device="cpu")


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda spec: f"{spec.kind}{'-fused' * spec.fused_backward}")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_optimizer_goes_on_bit_for_bit_in_the_middle_of_an_epoch(
    small: Trainer[Toy], tmp_path: Path, optimizer: Optimizer
) -> None:
    trainer = small.replace(optimizer=optimizer, network=LoRA(rank=4, dropout=0.1))
    whole = trainer.run(progress=False)
    halves = trainer.replace(output=tmp_path / "halves")

    resumed = halves.run(resume=stopped(halves, STOP), progress=False)

    assert same(whole.state, resumed.state)
    assert not whole.zero_effect


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda spec: spec.kind)
def test_every_schedule_goes_on_bit_for_bit(small: Trainer[Toy], tmp_path: Path, schedule: Schedule) -> None:
    trainer = small.replace(schedule=schedule, optimizer=AdamW(lr=1e-2))
    whole = trainer.run(progress=False)
    halves = trainer.replace(output=tmp_path / "halves")

    resumed = halves.run(resume=stopped(halves, STOP), progress=False)

    assert same(whole.state, resumed.state)
    assert whole.rates == tuple(1e-2 * schedule.factor(step, STEPS) for step in range(STEPS))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda spec: spec.kind)
def test_a_change_of_the_total_bends_the_rates_that_are_yet_to_come_and_nothing_else(
    small: Trainer[Toy], tmp_path: Path, schedule: Schedule
) -> None:
    trainer = small.replace(schedule=schedule, optimizer=AdamW(lr=1e-2), output=tmp_path / "longer")
    begun = trainer.replace(steps=STOP).run(progress=False)

    longer = trainer.run(resume=begun.state, progress=False)
    again = trainer.replace(output=tmp_path / "again").run(resume=begun.state, progress=False)

    expected = [schedule.factor(step, STOP if step < STOP else STEPS) for step in range(STEPS)]
    assert longer.rates == tuple(1e-2 * factor for factor in expected)
    assert longer.losses[:STOP] == begun.losses
    assert same(longer.state, again.state)


def test_a_longer_run_at_a_constant_rate_is_the_run_that_was_long_from_the_start(
    small: Trainer[Toy], tmp_path: Path
) -> None:
    whole = small.run(progress=False)
    shorter = small.replace(steps=STOP, output=tmp_path / "shorter").run(progress=False)

    longer = small.replace(output=tmp_path / "shorter").run(resume=shorter.state, progress=False)

    assert same(whole.state, longer.state)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda spec: spec.kind)
def test_every_network_goes_on_bit_for_bit_with_averages(small: Trainer[Toy], tmp_path: Path, network: Network) -> None:
    trainer = small.replace(network=network, optimizer=AdamW(lr=1e-2), ema=EMA(), accumulate=2)
    whole = trainer.run(progress=False)
    halves = trainer.replace(output=tmp_path / "halves")

    resumed = halves.run(resume=stopped(halves, STOP), progress=False)

    assert same(whole.state, resumed.state)
    assert not whole.zero_effect


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends processes without a signal")
@pytest.mark.parametrize(("number", "lost"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGKILL, 1)])
def test_after_a_signal_a_run_goes_on_bit_for_bit(
    small: Trainer[Toy], tmp_path: Path, number: signal.Signals, lost: int
) -> None:
    whole = small.run(progress=False)
    victim = small.replace(output=tmp_path / "victim").with_checkpoints(state_every=3)
    settings = victim.save(tmp_path / "victim.toml")

    with subprocess.Popen(
        [sys.executable, "-c", RUN, str(settings)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "4":
            pass
        time.sleep(0.05)
        process.send_signal(number)
        rest = process.stdout.read()

    assert ("ended" in rest) == (number != signal.SIGKILL)
    newest = latest(victim.output, "lora")
    assert newest is not None
    assert newest.name == f"lora-step{4 - lost:08d}-state"
    assert same(whole.state, victim.run(resume="latest", progress=False).state)
