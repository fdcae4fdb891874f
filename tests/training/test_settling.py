from __future__ import annotations

from pathlib import Path

import pytest

from musubi import Architecture, BlockSwap, ConfigError, GradientCheckpointing, Int8Scaled, Memory, Trainer
from musubi.testing.toy import Toy
from musubi.training.processes import Processes
from musubi.training.settling import settled
from musubi.training.state import RunState


@pytest.fixture
def wide(trainer: Trainer[Toy]) -> Trainer[Toy]:
    """A model whose weights are most of what it needs, so that a budget has something to choose."""
    return trainer.replace(model=Toy(dim=256, depth=8), steps=2)


def need(trainer: Trainer[Architecture]) -> int:
    peak = trainer.plan().peak
    assert peak is not None
    return peak.total


def test_what_is_decided_is_left_alone(wide: Trainer[Toy]) -> None:
    decided = wide.with_memory(GradientCheckpointing(), BlockSwap(blocks=3))

    assert settled(decided, Processes("cpu"), None) is decided


def test_a_budget_is_kept_to_by_what_is_chosen(wide: Trainer[Toy]) -> None:
    budget = need(wide.with_memory(GradientCheckpointing(), Int8Scaled()))

    chosen = settled(wide.with_memory(Memory.fit(budget)), Processes("cpu"), None)

    assert need(chosen) <= budget
    assert chosen.memory == (Int8Scaled(), GradientCheckpointing())


def test_a_run_takes_what_its_plan_shows_and_its_state_says_so(wide: Trainer[Toy]) -> None:
    budget = need(wide.with_memory(GradientCheckpointing(), Int8Scaled()))
    open_one = wide.with_memory(Memory.fit(budget))

    result = open_one.run(progress=False)

    kept = RunState.load(result.state).settings["weights_changed_by"]
    assert kept == [policy.to_dict() for policy in open_one.plan().policies if policy.changes_weights] != []


def test_a_resumed_run_keeps_the_weights_that_it_began_with(wide: Trainer[Toy], tmp_path: Path) -> None:
    """With all the memory there is nothing would be quantised; a run that began in 8 bits goes on in 8 bits."""
    first = wide.with_memory(Memory.fit(need(wide.with_memory(GradientCheckpointing(), Int8Scaled())))).run(
        progress=False
    )
    rich = wide.replace(steps=4, output=tmp_path / "again").with_memory(Memory.fit("64GiB"))

    chosen = settled(rich, Processes("cpu"), RunState.load(first.state))
    again = rich.run(resume=first.state, progress=False)

    assert [policy for policy in chosen.memory if policy.changes_weights] == [Int8Scaled()]
    assert settled(rich, Processes("cpu"), None).memory == ()
    assert again.steps == 4


def test_a_resumed_run_whose_weights_were_others_is_told_so(wide: Trainer[Toy], tmp_path: Path) -> None:
    first = wide.with_memory(Memory.fit("64GiB")).run(progress=False)
    other = wide.replace(steps=4, output=tmp_path / "again").with_memory(Int8Scaled(), Memory.fit("64GiB"))

    with pytest.raises(ConfigError, match="leaves the base weights as they were in the run that is resumed"):
        other.run(resume=first.state, progress=False)


def test_auto_swaps_as_many_blocks_as_the_plan_says(wide: Trainer[Toy]) -> None:
    budget = need(wide.with_memory(BlockSwap(blocks=5)))

    chosen = settled(wide.with_memory(BlockSwap(blocks="auto", budget=f"{budget} B")), Processes("cpu"), None)

    assert chosen.memory == (BlockSwap(blocks=5),)


def test_on_a_cpu_a_budget_has_to_be_given(wide: Trainer[Toy]) -> None:
    with pytest.raises(ConfigError, match=r'memory\[0\]\.budget: is not given.*Memory\.fit\("16GiB"\)'):
        wide.with_memory(Memory.fit()).replace(device="cpu").run(progress=False)
