from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from musubi import ConfigError, Event, Finished, Image, Sampled, Started, StepEnded, TrackerCallback, Trainer
from musubi.core.events import Band, Validated, WeightNorms
from musubi.testing.toy import Toy

STARTED = Started(step=0, total=9, items=3, trainable=10)
FINISHED = Finished(step=9, reason="completed")
STEP = StepEnded(
    step=1,
    total=9,
    epoch=0,
    loss=1.0,
    lr=1e-3,
    grad_norm=2.0,
    sigma=(0.5,),
    items=("a",),
    bucket="48x48",
    rates={"unet": 1e-3, "unet plus": 4e-3},
)


def steps(*losses: float, epoch: int = 0, first: int = 1) -> list[Event]:
    return [attrs.evolve(STEP, step=first + i, loss=loss, epoch=epoch) for i, loss in enumerate(losses)]


def log(folder: Path, *events: Event) -> EventAccumulator:
    tracker = TrackerCallback("tensorboard", folder=folder)
    for event in (STARTED, *events, FINISHED):
        tracker(event)
    return files(folder / "musubi")


def files(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def curve(found: EventAccumulator, name: str) -> dict[int, Any]:
    return {event.step: pytest.approx(event.value) for event in found.Scalars(name)}


def test_numbers_have_the_names_of_the_reference(tmp_path: Path) -> None:
    limited = attrs.evolve(STEP, step=2, norms=WeightNorms(scaled=3, mean=0.5, largest=1.0))

    found = log(tmp_path, STEP, limited)

    assert set(found.Tags()["scalars"]) == {
        *("loss/current", "loss/average", "loss/epoch", "lr/unet", "lr/unet plus"),
        *("max_norm/keys_scaled", "max_norm/average_key_norm", "max_norm/max_key_norm"),
        *("grad_norm", "epoch"),
    }
    assert curve(found, "max_norm/keys_scaled") == {2: 3}
    assert curve(found, "lr/unet plus") == {1: 4e-3, 2: 4e-3}


def test_the_mean_of_an_epoch_is_logged_at_its_last_step(tmp_path: Path) -> None:
    found = log(tmp_path, *steps(1.0, 3.0), *steps(5.0, epoch=1, first=3))

    assert curve(found, "loss/average") == {1: 1.0, 2: 2.0, 3: 4.0}
    assert curve(found, "loss/epoch") == {2: 2.0, 3: 4.0}


def test_validation_losses_are_logged_with_their_bands(tmp_path: Path) -> None:
    bands = (Band(low=0.0, high=0.25, loss=0.2), Band(low=0.25, high=1.0, loss=0.4))

    found = log(tmp_path, *steps(1.0), Validated(step=1, loss=0.3, bands=bands, best=True))

    assert curve(found, "loss/validation") == {1: 0.3}
    assert curve(found, "loss/validation/0.00-0.25") == {1: 0.2}
    assert curve(found, "loss/validation/0.25-1.00") == {1: 0.4}


def test_a_step_that_was_skipped_leaves_no_hole_in_the_curve(tmp_path: Path) -> None:
    skipped = attrs.evolve(STEP, step=2, loss=float("nan"), grad_norm=float("inf"), skipped=True)

    found = log(tmp_path, STEP, skipped)

    assert curve(found, "loss/current") == {1: 1.0}
    assert curve(found, "loss/average") == {1: 1.0, 2: 1.0}
    assert curve(found, "skipped") == {2: 1.0}


def test_samples_are_shown(tmp_path: Path) -> None:
    found = log(tmp_path, Sampled(step=0, images=(Image(np.zeros((8, 8, 3))),)))

    assert [event.step for event in found.Images("sample_0")] == [0]


def test_several_trackers_may_listen_and_each_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'tensorboard'"):
        TrackerCallback("tensorboard", "tensorbord", folder=tmp_path)
    with pytest.raises(ConfigError, match=r"trackers: there is none"):
        TrackerCallback()
    with pytest.raises(ConfigError, match=r"options\.tensorbord: is for no tracker that is used; did you mean"):
        TrackerCallback("tensorboard", options={"tensorbord": {}})


def test_nothing_is_written_before_a_run_starts(tmp_path: Path) -> None:
    tracker = TrackerCallback("tensorboard", folder=tmp_path / "logs")

    tracker(STEP)
    tracker(FINISHED)

    assert not (tmp_path / "logs").exists()


def test_a_run_is_logged_under_its_name_and_goes_on_where_its_curve_ended(
    trainer: Trainer[Toy], tmp_path: Path
) -> None:
    tracker = TrackerCallback("tensorboard", folder=tmp_path / "logs", trainer=trainer)

    first = trainer.replace(steps=4).run(on=[tracker], progress=False)
    result = trainer.run(on=[tracker], resume=first.state, progress=False)

    found = files(tmp_path / "logs" / trainer.name)
    assert curve(found, "loss/current") == dict(enumerate(result.losses, start=1))
    assert b"| network.rank | 4 |" in found.Tensors("settings/text_summary")[0].tensor_proto.string_val[0]
