"""Steps that go wrong, and what a step adds up."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from musubi import (
    AdamW,
    Cache,
    ConfigError,
    Constant,
    Finished,
    LoRA,
    LoRAFile,
    PriorPreservation,
    RolledBack,
    RunError,
    StepEnded,
    Trainer,
    WeightsError,
)
from musubi.testing.toy import Toy, ToyConditions, ToyDenoiser
from tests.training.conftest import build_cache


class Stumbling(Toy):
    """A toy whose network gives no number for some calls, counted over the life of a denoiser."""

    def denoiser(self) -> ToyDenoiser:
        return StumblingDenoiser(self)


class StumblingDenoiser(ToyDenoiser):
    """Give ``nan`` for the fifth and sixth call."""

    calls = 0

    def velocity(self, model: nn.Module, x: Tensor, sigma: Tensor, cond: ToyConditions) -> Tensor:
        type(self).calls += 1
        predicted = super().velocity(model, x, sigma, cond)
        return predicted * math.nan if type(self).calls in (5, 6) else predicted


@pytest.fixture
def stumbling(trainer: Trainer[Toy], cache: Cache[Toy]) -> Trainer[Toy]:
    StumblingDenoiser.calls = 0
    return trainer.replace(model=Stumbling(), accumulate=1, schedule=Constant(), network=LoRA(rank=4))


def test_a_step_that_is_not_finite_may_be_skipped(stumbling: Trainer[Toy]) -> None:
    with stumbling.replace(on_nonfinite="skip").start() as run:
        steps = [event for event in run if isinstance(event, StepEnded)]

    assert [event.step for event in steps if event.skipped] == [5, 6]
    assert len(steps) == 10
    assert all(torch.isfinite(t).all() for t in run.result.lora.tensors().values())


def test_a_run_may_go_back_and_on_with_other_noise(stumbling: Trainer[Toy]) -> None:
    trainer = stumbling.replace(on_nonfinite="roll_back").with_checkpoints(state_every=3)

    with trainer.start() as run:
        events = list(run)

    back = [event for event in events if isinstance(event, RolledBack)]
    assert [(event.step, event.to) for event in back] == [(5, 3), (4, 3)]
    steps = [event for event in events if isinstance(event, StepEnded)]
    assert [event.step for event in steps] == [1, 2, 3, 4, 4, 5, 6, 7, 8, 9, 10]
    assert steps[3].items == steps[4].items
    assert steps[3].sigma != steps[4].sigma
    assert isinstance(events[-1], Finished)


def test_a_run_that_goes_back_resumes_exactly(stumbling: Trainer[Toy], tmp_path: Path) -> None:
    trainer = stumbling.replace(on_nonfinite="roll_back").with_checkpoints(state_every=3)
    whole = trainer.run(progress=False)
    middle = trainer.output / "lora-step00000006-state"

    resumed = trainer.replace(output=tmp_path / "resumed").run(resume=middle, progress=False)

    assert resumed.losses == whole.losses


def test_what_never_becomes_finite_ends_the_run(trainer: Trainer[Toy]) -> None:
    for way in ("skip", "roll_back"):
        with pytest.raises(RunError, match=r"(gradient|loss) is not finite"):
            trainer.replace(
                optimizer=AdamW(lr=1e30), schedule=Constant(), on_nonfinite=way, max_grad_norm=None, steps=60
            ).run(progress=False)


class Steep(Toy):
    """A toy whose loss is a number and whose gradient never is one."""

    def denoiser(self) -> ToyDenoiser:
        return SteepDenoiser(self)


class SteepDenoiser(ToyDenoiser):
    def velocity(self, model: nn.Module, x: Tensor, sigma: Tensor, cond: ToyConditions) -> Tensor:
        predicted = super().velocity(model, x, sigma, cond)
        if predicted.requires_grad:
            predicted.register_hook(lambda gradient: gradient * math.nan)
        return predicted


@pytest.mark.parametrize("way", ["skip", "roll_back"])
def test_gradients_that_are_never_finite_end_the_run_though_losses_are(trainer: Trainer[Toy], way: str) -> None:
    with pytest.raises(RunError, match="the gradient is not finite") as caught:
        trainer.replace(model=Steep(), on_nonfinite=way, steps=60).run(progress=False)

    assert caught.value.step == (11 if way == "skip" else 1)


def test_accumulated_batches_are_one_step_of_their_mean(trainer: Trainer[Toy], tmp_path: Path) -> None:
    one = trainer.replace(accumulate=1, steps=2, optimizer=AdamW(lr=0.0)).run(progress=False)

    both = trainer.replace(steps=1, optimizer=AdamW(lr=0.0), output=tmp_path / "both").run(progress=False)

    assert both.losses[0] == pytest.approx(sum(one.losses) / 2, rel=1e-6)


def test_training_can_start_from_a_file_in_its_ranks(trainer: Trainer[Toy], tmp_path: Path) -> None:
    first = trainer.replace(network=LoRA(rank=3, alpha=6)).run(progress=False)

    again = trainer.replace(steps=1, optimizer=AdamW(lr=0.0), output=tmp_path / "again").with_initial(first.path)
    result = again.run(progress=False)

    one, other = first.lora.tensors(), result.lora.tensors()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert result.lora.rank == 3


def test_a_file_of_another_kind_or_model_cannot_be_started_from(trainer: Trainer[Toy], tmp_path: Path) -> None:
    foreign = LoRAFile(modules=trainer.run(progress=False).lora.modules).save(tmp_path / "x.safetensors")

    with pytest.raises(WeightsError, match=r"blocks\.1"):
        trainer.replace(model=Toy(depth=1)).with_initial(foreign).run(progress=False)


def test_a_merged_lora_is_where_training_starts(trainer: Trainer[Toy], tmp_path: Path) -> None:
    first = trainer.replace(optimizer=AdamW(lr=0.1)).run(progress=False)
    still = trainer.replace(steps=1, optimizer=AdamW(lr=0.0), output=tmp_path / "still")

    attached = still.with_initial(first.path).run(progress=False)
    merged = still.with_base_lora(first.path).run(progress=False)
    plain = still.run(progress=False)

    assert merged.losses[0] != pytest.approx(plain.losses[0], rel=1e-3)
    assert merged.losses[0] == pytest.approx(attached.losses[0], rel=0.5)


def test_a_prior_adds_its_weighted_loss_and_starts_at_zero(
    trainer: Trainer[Toy], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = build_cache(tmp_path_factory.mktemp("prior"))
    quiet = trainer.replace(network=LoRA(rank=4), optimizer=AdamW(lr=1e-2), accumulate=1)
    alone = quiet.run(progress=False)

    kept = quiet.replace(output=tmp_path / "kept").with_prior(PriorPreservation(cache=other, weight=0.5))
    base = kept.run(progress=False)
    data = kept.with_prior(PriorPreservation(cache=other, weight=0.5, target="data")).run(progress=False)

    assert base.losses[0] == pytest.approx(alone.losses[0]), "the base model agrees with itself at first"
    assert base.losses[-1] != pytest.approx(alone.losses[-1])
    assert data.losses[0] > alone.losses[0] * 1.1


def test_a_prior_resumes_exactly(trainer: Trainer[Toy], tmp_path: Path) -> None:
    kept = trainer.with_prior(PriorPreservation(cache=trainer.cache)).with_checkpoints(state_every=3)
    whole = kept.run(progress=False)

    resumed = kept.replace(output=tmp_path / "resumed").run(
        resume=kept.output / "lora-step00000003-state", progress=False
    )

    assert resumed.losses == whole.losses


def test_what_an_optimizer_cannot_do_is_said_at_once(trainer: Trainer[Toy]) -> None:
    with pytest.raises(ConfigError) as caught:
        trainer.replace(optimizer=AdamW(fused_backward=True), on_nonfinite="skip")

    assert {issue.path for issue in caught.value.issues} == {"accumulate", "on_nonfinite"}
