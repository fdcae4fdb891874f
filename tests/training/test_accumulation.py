"""What goes wrong with a batch: which one it was, and that nothing of the step stays."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from musubi import LoRA, PriorPreservation, RunError, Trainer
from musubi.batch import Batch
from musubi.testing.toy import Toy, ToyConditions, ToyDenoiser
from musubi.training.accumulation import Seen, not_finite
from musubi.training.objective import Measured
from musubi.training.state import RunState
from tests.training.conftest import build_cache


class Failing(Toy):
    """A toy whose network fails once, at the call that is told, with an error of torch's own."""

    def denoiser(self) -> ToyDenoiser:
        return FailingDenoiser(self)


class FailingDenoiser(ToyDenoiser):
    calls, at, message = 0, 0, ""

    def velocity(self, model: nn.Module, x: Tensor, sigma: Tensor, cond: ToyConditions) -> Tensor:
        kind = type(self)
        kind.calls += 1
        if kind.calls == kind.at:
            raise RuntimeError(kind.message)
        return super().velocity(model, x, sigma, cond)


def failing(monkeypatch: pytest.MonkeyPatch, *, at: int, message: str) -> Failing:
    for name, value in {"calls": 0, "at": at, "message": message}.items():
        monkeypatch.setattr(FailingDenoiser, name, value)
    return Failing()


def seen(*losses: float, names: tuple[str, ...]) -> tuple[Seen, ...]:
    batches = [Batch(items=(name,), bucket=f"bucket of {name}", stacked={}, ragged={}) for name in names]
    measured = [Measured(loss=torch.tensor(loss), sigma=torch.tensor([0.5])) for loss in losses]
    return tuple(map(Seen, batches, measured))


def test_a_failure_between_two_batches_of_a_step_leaves_no_trace_in_what_follows(
    trainer: Trainer[Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trainer.run(progress=False)
    broken = trainer.replace(output=tmp_path / "broken", model=failing(monkeypatch, at=6, message="size mismatch"))

    with pytest.raises(RunError, match=r"size mismatch.*step 3.*built with other encoders"), broken.start() as run:
        list(run)
    resumed = broken.run(resume=run.state, progress=False)

    assert RunState.load(run.state).step == 2
    assert resumed.losses == whole.losses


@pytest.mark.parametrize(
    "message", ["CUDA out of memory. Tried to allocate 2 GiB", "MPS backend out of memory (MPS ..."]
)
def test_running_out_of_memory_names_the_batch_and_what_would_help(
    trainer: Trainer[Toy], monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    with pytest.raises(
        RunError, match=r"out of device memory \(step 1; items .*; bucket .*GradientCheckpointing"
    ) as caught:
        trainer.replace(model=failing(monkeypatch, at=1, message=message)).run(progress=False)

    cause = caught.value.__cause__
    assert cause is not None
    assert cause.__traceback__ is None, "frames would keep what there was no room for"


def test_what_is_not_finite_is_named_and_only_that() -> None:
    error = not_finite(7, seen(0.5, math.nan, 0.1, names=("a", "b", "c")))

    assert (error.step, error.items, error.bucket, error.sigma) == (7, ("b",), "bucket of b", (0.5,))
    assert "the loss is not finite" in str(error)


def test_if_all_losses_are_finite_all_batches_are_named() -> None:
    error = not_finite(7, seen(0.5, 0.1, names=("a", "b")))

    assert error.items == ("a", "b")
    assert "the gradient is not finite" in str(error)


def test_the_priors_batch_is_named_if_it_is_the_one() -> None:
    own, known = seen(0.5, math.inf, names=("mine", "theirs"))

    error = not_finite(1, [Seen(own.batch, own.measured, prior=known)])

    assert error.items == ("theirs",)


def test_the_loss_that_is_told_is_the_one_that_gradients_follow() -> None:
    own, known = seen(0.5, 0.25, names=("mine", "theirs"))

    assert Seen(own.batch, own.measured, prior=Seen(known.batch, known.measured, weight=2.0)).loss == 1.0


def test_a_prior_draws_the_same_whichever_way_its_batches_are_added_up(
    trainer: Trainer[Toy], tmp_path_factory: pytest.TempPathFactory
) -> None:
    prior = PriorPreservation(cache=build_cache(tmp_path_factory.mktemp("prior")), weight=0.5, target="data")
    still = trainer.replace(network=LoRA(rank=2), prior=prior).replace(optimizer=trainer.optimizer.replace(lr=0.0))

    one = still.replace(accumulate=1, steps=2, output=trainer.output / "one").run(progress=False)
    both = still.replace(accumulate=2, steps=1).run(progress=False)

    assert both.losses[0] == pytest.approx(sum(one.losses) / 2, rel=1e-6)
