"""What a run writes on its way, what it keeps of that, and what it measures."""

from __future__ import annotations

from pathlib import Path

import pytest

from musubi import (
    EMA,
    AdamW,
    Cache,
    CacheError,
    ConfigError,
    Constant,
    Dataset,
    Event,
    LoRAFile,
    Removed,
    Saved,
    StepEnded,
    Trainer,
    Validated,
    Validation,
)
from musubi.testing.toy import Toy
from tests.training.conftest import write_pictures


def events_of(trainer: Trainer[Toy]) -> list[Event]:
    with trainer.start() as run:
        return list(run)


def saved(events: list[Event], what: str) -> list[str]:
    return [event.path.name for event in events if isinstance(event, Saved) and event.what == what]


@pytest.fixture
def plain(trainer: Trainer[Toy]) -> Trainer[Toy]:
    """Return a trainer of ten steps of one batch, four batches making an epoch."""
    return trainer.replace(accumulate=1)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Cache[Toy]:
    """Return a cache that holds two of nine pictures out."""
    folder = tmp_path_factory.mktemp("watched")
    data = Dataset.from_folder(write_pictures(folder / "pictures", 9), resolution=48).with_validation(share=0.25)
    return Cache(folder / "cache", model=Toy()).build(data.with_geometry(Toy().geometry), progress=False)


def test_files_by_step_and_by_epoch_have_the_references_names(plain: Trainer[Toy]) -> None:
    events = events_of(plain.with_checkpoints(save_every=3, save_every_epochs=1, state_every=5, state_every_epochs=2))

    assert saved(events, "lora") == [
        *("lora-step00000003.safetensors", "lora-000001.safetensors", "lora-step00000006.safetensors"),
        *("lora-000002.safetensors", "lora-step00000009.safetensors", "lora.safetensors"),
    ]
    assert saved(events, "state") == ["lora-step00000005-state", "lora-000002-state", "lora-state"]


def test_only_the_newest_of_each_kind_stay(plain: Trainer[Toy]) -> None:
    kept = plain.with_checkpoints(save_every=2, save_every_epochs=1, state_every=2, keep_last=2, keep_last_states=1)

    events = events_of(kept)

    assert {path.name for path in kept.output.iterdir()} == {
        *("lora-step00000006.safetensors", "lora-step00000008.safetensors"),
        *("lora-000001.safetensors", "lora-000002.safetensors"),
        *("lora.safetensors", "lora-step00000008-state", "lora-state"),
    }
    gone = [event.path.name for event in events if isinstance(event, Removed)]
    assert gone == [
        *("lora-step00000002-state", "lora-step00000002.safetensors", "lora-step00000004-state"),
        *("lora-step00000004.safetensors", "lora-step00000006-state"),
    ]


def test_epochs_say_how_long_a_run_is(plain: Trainer[Toy]) -> None:
    result = plain.replace(steps=None, epochs=3).run(progress=False)

    assert result.steps == 12
    assert result.lora.metadata["ss_num_epochs"] == "3"
    with pytest.raises(ConfigError, match="epochs: is 3, but steps says 10"):
        plain.replace(epochs=3)


def test_a_name_that_another_runs_files_may_have_is_refused(plain: Trainer[Toy]) -> None:
    with pytest.raises(ConfigError, match="must not end in '-000002'"):
        plain.replace(name="lora-000002")


def test_validation_is_measured_when_due_and_at_the_end_and_changes_no_step(
    plain: Trainer[Toy], watched: Cache[Toy], tmp_path: Path
) -> None:
    alone = plain.replace(cache=watched, output=tmp_path / "alone").run(progress=False)
    trainer = plain.replace(cache=watched, validation=Validation(every=4))

    events = events_of(trainer)

    measured = [event for event in events if isinstance(event, Validated)]
    assert [event.step for event in measured] == [4, 8, 10]
    assert all(len(event.bands) == 4 for event in measured)
    assert tuple(event.loss for event in events if isinstance(event, StepEnded)) == alone.losses


def test_the_best_by_validation_is_kept_under_its_name(plain: Trainer[Toy], watched: Cache[Toy]) -> None:
    trainer = plain.replace(cache=watched, optimizer=AdamW(lr=0.3), validation=Validation(every=1))

    result = trainer.run(progress=False)

    assert result.best is not None
    best = min(result.validations, key=lambda one: one.loss)
    assert next(one.best for one in result.validations if one.loss == best.loss)
    assert LoRAFile.load(result.best).metadata["ss_steps"] == str(best.step)


def test_what_was_best_is_remembered_across_a_resume(plain: Trainer[Toy], watched: Cache[Toy], tmp_path: Path) -> None:
    trainer = plain.replace(cache=watched, validation=Validation(every=2), schedule=Constant())
    whole = trainer.run(progress=False)
    halves = trainer.replace(output=tmp_path / "halves")
    first = halves.replace(steps=4).run(progress=False)

    second = halves.run(resume=first.state, progress=False)

    assert second.validations == whole.validations


def test_validation_without_held_out_items_is_refused_before_anything_is_loaded(plain: Trainer[Toy]) -> None:
    with pytest.raises(CacheError, match="with_validation"):
        plain.replace(validation=Validation()).run(progress=False)


def test_averages_are_what_is_saved_and_resumed_from_are_the_weights(plain: Trainer[Toy], tmp_path: Path) -> None:
    averaged = plain.replace(ema=EMA(decay=0.9), optimizer=AdamW(lr=1e-2)).run(progress=False)
    bare = plain.replace(optimizer=AdamW(lr=1e-2), output=tmp_path / "bare").run(progress=False)

    assert averaged.losses == bare.losses, "averages watch, they do not steer"
    one, other = averaged.lora.tensors(), bare.lora.tensors()
    moved = [float((one[n] - other[n]).abs().max()) for n in one if n.endswith("up.weight")]
    assert max(moved) > 1e-4
