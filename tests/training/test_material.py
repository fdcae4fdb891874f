from __future__ import annotations

from pathlib import Path

import pytest

from musubi import Cache, CacheError, PriorPreservation, Trainer, Validation
from musubi.testing.toy import Toy
from musubi.training.material import Material
from musubi.training.processes import Processes
from tests.training.conftest import build_cache


def opened(trainer: Trainer[Toy]) -> Material:
    return Material.open(trainer, Processes("cpu"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Cache[Toy]:
    folder = tmp_path_factory.mktemp("other")
    return build_cache(folder, count=3)


@pytest.mark.parametrize(
    ("steps", "epochs", "total"), [(5, None, 5), (None, 3, 6), (None, None, 1600)], ids=["steps", "epochs", "neither"]
)
def test_a_run_is_as_long_as_steps_or_epochs_say(
    trainer: Trainer[Toy], steps: int | None, epochs: int | None, total: int
) -> None:
    material = opened(trainer.replace(steps=steps, epochs=epochs))

    assert len(material.loader) == 4, "two buckets of four and three items, two in a batch"
    assert material.total == total


def test_what_tells_the_data_knows_the_priors_too(trainer: Trainer[Toy], other: Cache[Toy]) -> None:
    alone = opened(trainer)
    beside = opened(trainer.with_prior(PriorPreservation(cache=other)))

    assert alone.prior is None
    assert beside.prior is not None
    assert (beside.loader.items, beside.prior.items) == (7, 3)
    assert beside.content not in {alone.content, beside.prior.content}


def test_all_of_it_is_looked_at_before_any_weight_is_loaded(trainer: Trainer[Toy], tmp_path: Path) -> None:
    nothing = Cache(tmp_path / "nothing", model=Toy())

    with pytest.raises(CacheError, match="nothing"):
        opened(trainer.replace(cache=nothing))
    with pytest.raises(CacheError, match="nothing"):
        opened(trainer.with_prior(PriorPreservation(cache=nothing)))
    with pytest.raises(CacheError, match="with_validation"):
        opened(trainer.with_validation(Validation()))
