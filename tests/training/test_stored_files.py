from __future__ import annotations

import pytest

from musubi import Request, Trainer, Validation
from musubi.testing.toy import Toy
from musubi.training.stored_files import places


@pytest.mark.parametrize(
    ("change", "files", "states"),
    [
        ({}, 1, 1),
        ({"save_every": 3}, 4, 1),
        ({"save_every": 3, "keep_last": 2}, 3, 1),
        ({"save_every": 10}, 1, 1),
        ({"state_every": 4, "keep_last_states": 1}, 1, 2),
        ({"state_every": 4, "keep_last": 5}, 1, 3),
        ({"save_every_epochs": 2}, 3, 1),
        ({"epochs": 3, "steps": None, "save_every_epochs": 1}, 3, 1),
    ],
    ids=str,
)
def test_files_and_states_are_those_that_stay(
    trainer: Trainer[Toy], change: dict[str, object], files: int, states: int
) -> None:
    """Ten steps of two batches; an epoch is four batches of seven items in two buckets."""
    found = places(trainer.replace(**change), file=10, state=20)

    assert (found.files, found.states) == (files, states)
    assert found.total == 10 * files + 20 * states + found.cache


def test_they_are_those_that_a_run_leaves(trainer: Trainer[Toy]) -> None:
    busy = trainer.replace(save_every=3, state_every=4, keep_last=2)

    busy.run(progress=False)

    found = places(busy, file=1, state=1)
    assert len(list(trainer.output.glob("*.safetensors"))) == found.files
    assert len(list(trainer.output.glob("*-state"))) == found.states


def test_the_best_file_the_cache_and_samples_count(trainer: Trainer[Toy]) -> None:
    plain = places(trainer, file=1, state=1)
    drawing = trainer.with_samples(Request("a", size=(64, 64), frames=1), every=5)

    assert places(trainer.with_validation(Validation(every=5)), file=1, state=1).files == 2
    assert plain.cache == trainer.cache.manifest().bytes > 0
    assert plain.samples == 0
    assert places(drawing, file=1, state=1).samples == round(3 * 64 * 64 * 1.5)
