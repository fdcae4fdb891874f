from __future__ import annotations

import math
from pathlib import Path

import pytest

from musubi import Event, Finished, Progress, ProgressBar, Sampled, Saved, Started, StepEnded, Warned
from musubi.core.events import RolledBack, Validated

STARTED = Started(step=2, total=5, items=3, trainable=10)


def step(number: int, loss: float = 0.5, epoch: int = 0) -> StepEnded:
    return StepEnded(
        step=number, total=5, epoch=epoch, loss=loss, lr=1e-3, grad_norm=1.0, sigma=(0.5,), items=("a",), bucket="48x48"
    )


def shown(capsys: pytest.CaptureFixture[str], *events: Event) -> str:
    bar = ProgressBar()
    for event in (STARTED, *events, Finished(step=4, reason="failed")):
        bar(event)
    output = capsys.readouterr()
    assert not output.out
    return output.err


def test_the_bar_begins_at_the_resumed_step_and_shows_loss_rate_and_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, step(3), Warned(message="look out"), step(4, epoch=1))

    assert "4/5" in text
    assert "loss=0.5000, lr=1.00e-03, epoch=2" in text
    assert "look out" in text


def test_the_loss_is_smoothed_without_a_bias_to_its_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, step(3, loss=1.0), step(4, loss=0.0))

    assert f"loss={0.95 * 0.05 / (1 - 0.95**2):.4f}" in text


def test_a_step_without_a_finite_loss_leaves_the_shown_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert "loss=0.5000" in shown(capsys, step(3), step(4, loss=math.nan))


def test_the_validation_loss_stays_beside_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, step(3), Validated(step=3, loss=0.25, bands=(), best=True), step(4))

    assert "epoch=1, val=0.2500 (best)" in text


def test_what_is_drawn_and_saved_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    picture, lora = Path("output/samples/a.png"), Path("output/lora.safetensors")

    text = shown(
        capsys,
        Progress(task="sampling", done=1, total=8),
        Sampled(step=3, images=(), paths=(picture,)),
        Saved(step=3, path=lora, what="lora"),
    )

    assert "sampling 1/8" in text
    assert "step 3: drew output/samples/a.png" in text
    assert "step 3: saved output/lora.safetensors" in text


def test_a_roll_back_moves_the_bar_back(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, step(3), step(4), RolledBack(step=5, to=2), step(3))

    assert "step 5 was not finite: back to step 2" in text
    assert "3/5" in text.rpartition("back to step 2")[2]


def test_a_bar_can_be_closed_twice_and_hears_nothing_before_a_start(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar()

    bar(step(1))
    bar.close()
    bar.close()

    assert not capsys.readouterr().err
