from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from musubi import ConfigError, Finished, ProgressBar, Started, StepEnded, TrackerCallback, Trainer, Warned
from musubi.testing.toy import Toy

STARTED = Started(step=2, total=5, items=3, trainable=10)


def step(number: int) -> StepEnded:
    return StepEnded(
        step=number, total=5, epoch=0, loss=0.5, lr=1e-3, grad_norm=1.0, sigma=(0.5,), items=("a",), bucket="48x48"
    )


def test_the_bar_begins_at_the_resumed_step_and_shows_loss_and_rate(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar()

    for event in (STARTED, step(3), Warned(message="look out"), step(4), Finished(step=4, reason="failed")):
        bar(event)

    shown = capsys.readouterr()
    assert "4/5" in shown.err
    assert "loss=0.5000, lr=1.00e-03" in shown.err
    assert "look out" in shown.err
    assert not shown.out


def test_a_tracker_writes_every_step_to_its_files(trainer: Trainer[Toy], tmp_path: Path) -> None:
    tracker = TrackerCallback("tensorboard", folder=tmp_path / "logs")

    result = trainer.run(on=[tracker], progress=False)

    files = EventAccumulator(str(tmp_path / "logs" / "musubi"))
    files.Reload()
    written = files.Scalars("loss")
    assert [event.step for event in written] == list(range(1, 11))
    assert [event.value for event in written] == pytest.approx(list(result.losses), rel=1e-6)


def test_a_tracker_that_does_not_exist_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'tensorboard'"):
        TrackerCallback("tensorbord")
