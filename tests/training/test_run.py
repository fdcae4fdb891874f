from __future__ import annotations

import math
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from musubi import (
    AdamW,
    Cache,
    ConfigError,
    Constant,
    Event,
    Finished,
    Request,
    RunError,
    Sampled,
    Saved,
    Started,
    StepEnded,
    Trainer,
    Warned,
)
from musubi.testing.toy import Toy
from musubi.training.run import Run
from musubi.training.state import RunState


def states_equal(one: RunState, other: RunState) -> bool:
    def same(a: object, b: object) -> bool:
        if isinstance(a, torch.Tensor):
            return isinstance(b, torch.Tensor) and torch.equal(a, b)
        if isinstance(a, dict):
            return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
        if isinstance(a, list | tuple):
            return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same, a, b))
        return a == b

    names = ("step", "position", "settings", "data", "adapter", "optimizer", "generators", "losses", "rates")
    return all(same(getattr(one, name), getattr(other, name)) for name in names)


def run_until(trainer: Trainer[Toy], step: int, *, resume: Path | None = None) -> Run:
    with trainer.start(resume=resume) as run:
        for event in run:
            if isinstance(event, StepEnded) and event.step == step:
                run.cancel()
    return run


@pytest.mark.parametrize("stop", [1, 3, 5, 8])
def test_a_run_stopped_anywhere_and_resumed_equals_an_undisturbed_one_bit_for_bit(
    trainer: Trainer[Toy], tmp_path: Path, stop: int
) -> None:
    undisturbed = trainer.run(progress=False)
    halves = trainer.replace(output=tmp_path / "halves")

    first = run_until(halves, stop)
    second = halves.run(resume=first.state, progress=False)

    assert first.result.reason == "cancelled"
    assert states_equal(RunState.load(undisturbed.state), RunState.load(second.state))
    assert undisturbed.losses == second.losses
    assert len(second.losses) == 10
    one, other = load_file(undisturbed.path), load_file(second.path)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_resuming_is_the_same_from_the_middle_of_an_epoch(trainer: Trainer[Toy], tmp_path: Path) -> None:
    run = run_until(trainer, 3)
    position = RunState.load(run.state).position

    assert position.index > 0  # four batches an epoch, two a step: three steps end in the middle of the second epoch


def test_two_runs_of_one_seed_are_equal_and_of_another_seed_are_not(trainer: Trainer[Toy], tmp_path: Path) -> None:
    one = trainer.run(progress=False)
    same = trainer.replace(output=tmp_path / "same").run(progress=False)
    other = trainer.replace(output=tmp_path / "other", seed=4).run(progress=False)

    assert one.losses == same.losses
    assert one.losses != other.losses


def test_training_lowers_the_loss(cache: Cache[Toy], tmp_path: Path) -> None:
    trainer = Trainer(model=Toy(), cache=cache, steps=150, output=tmp_path, optimizer=AdamW(lr=1e-2))

    losses = trainer.run(progress=False).losses

    assert sum(losses[-30:]) < 0.9 * sum(losses[:30])


def test_events_tell_the_whole_story_in_order(trainer: Trainer[Toy]) -> None:
    heard: list[Event] = []
    told = list(trainer.with_checkpoints(save_every=4, state_every=5).start(on=[heard.append]))

    assert told == heard
    assert isinstance(told[0], Started)
    assert [e.step for e in told if isinstance(e, StepEnded)] == list(range(1, 11))
    assert [(e.step, e.what, e.path.name) for e in told if isinstance(e, Saved)] == [
        (4, "lora", "lora-step00000004.safetensors"),
        (5, "state", "lora-step00000005-state"),
        (8, "lora", "lora-step00000008.safetensors"),
        (10, "lora", "lora.safetensors"),
        (10, "state", "lora-state"),
    ]
    assert told[-1] == Finished(step=10, reason="completed")


def test_cancelling_from_another_thread_finishes_the_step_and_saves(trainer: Trainer[Toy]) -> None:
    trainer = trainer.replace(steps=100_000)
    run = trainer.start()
    timer = threading.Timer(0.3, run.cancel)
    timer.start()

    events = list(run)

    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "cancelled"
    assert RunState.load(run.state).step == events[-1].step
    assert run.result.path.is_file()


def test_an_error_in_the_callers_block_loses_no_step(trainer: Trainer[Toy]) -> None:
    run = trainer.start()

    def use_and_fail() -> None:
        with run:
            for event in run:
                if isinstance(event, StepEnded) and event.step == 4:
                    raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use_and_fail()

    assert RunState.load(run.state).step == 4


def test_a_loss_that_is_not_finite_names_step_items_bucket_and_sigma_and_keeps_the_steps_before(
    trainer: Trainer[Toy],
) -> None:
    diverging = trainer.replace(accumulate=1, max_grad_norm=None, schedule=Constant()).with_optimizer(AdamW(lr=1e25))

    run = diverging.start()
    with pytest.raises(RunError, match="not finite") as caught, run:
        list(run)

    error = caught.value
    assert error.step > 1
    drawn = trainer.cache.loader(seed=trainer.seed).epoch(0)
    assert error.items == drawn[error.step - 1]
    assert error.bucket in trainer.cache.manifest().buckets
    assert len(error.sigma) == len(error.items)
    assert all(0 < s < 1 for s in error.sigma)
    assert RunState.load(run.state).step == error.step - 1


def test_a_learning_rate_of_zero_is_told_to_have_no_effect(trainer: Trainer[Toy]) -> None:
    events = list(trainer.with_optimizer(AdamW(lr=0.0)).start())

    assert any("no effect" in e.message for e in events if isinstance(e, Warned))


def test_the_base_model_is_the_same_before_and_after_a_run(
    trainer: Trainer[Toy], monkeypatch: pytest.MonkeyPatch
) -> None:
    from musubi.testing.toy import ToyDenoiser

    loaded: list[torch.nn.Module] = []
    load = ToyDenoiser.load

    def remember(self: ToyDenoiser, *args: object, **kwargs: object) -> torch.nn.Module:
        loaded.append(load(self, *args, **kwargs))  # type: ignore[arg-type]
        before.append({n: p.detach().clone() for n, p in loaded[-1].named_parameters()})
        return loaded[-1]

    before: list[dict[str, torch.Tensor]] = []
    monkeypatch.setattr(ToyDenoiser, "load", remember)

    trainer.run(progress=False)

    after = dict(loaded[0].named_parameters())
    assert after.keys() == before[0].keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before[0].items())
    assert not any(module._forward_hooks for module in loaded[0].modules())


def test_a_run_leaves_the_callers_random_numbers_alone(trainer: Trainer[Toy]) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)

    trainer.run(progress=False)

    assert torch.equal(torch.rand(3), expected)


def test_the_callers_random_numbers_do_not_change_a_run(trainer: Trainer[Toy], tmp_path: Path) -> None:
    plain = trainer.run(progress=False)
    trainer = trainer.replace(output=tmp_path / "again")

    with trainer.start() as run:
        for _ in run:
            torch.rand(100)

    assert run.result.losses == plain.losses


def test_resuming_with_other_settings_lists_what_changed(trainer: Trainer[Toy]) -> None:
    run = run_until(trainer, 2)

    with pytest.raises(ConfigError) as caught:
        trainer.replace(seed=9, accumulate=1).run(resume=run.state, progress=False)

    assert {issue.path for issue in caught.value.issues} == {"accumulate", "seed"}


def test_resume_latest_takes_the_newest_state(trainer: Trainer[Toy]) -> None:
    trainer = trainer.with_checkpoints(state_every=2)
    run_until(trainer, 5)

    result = trainer.run(resume="latest", progress=False)

    assert result.steps == 10
    assert len(result.losses) == 10


def test_a_folder_that_is_no_state_is_refused_by_name(trainer: Trainer[Toy], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing-here"):
        trainer.run(resume=tmp_path / "nothing-here", progress=False)


def test_samples_are_drawn_before_during_and_after_and_do_not_disturb_the_run(
    trainer: Trainer[Toy], tmp_path: Path
) -> None:
    plain = trainer.run(progress=False)
    sampled = trainer.replace(output=tmp_path / "sampled").with_samples(
        Request("picture number 1", size=(32, 32), seed=1), Request("moving", frames=5, size=(32, 32)), every=5
    )

    events = list(sampled.start())

    drawn = [e for e in events if isinstance(e, Sampled)]
    assert [e.step for e in drawn] == [0, 5, 10]
    assert all(p.is_file() for e in drawn for p in e.paths)
    assert {p.suffix for p in drawn[0].paths} == {".png", ".mp4"}
    assert tuple(e.loss for e in events if isinstance(e, StepEnded)) == plain.losses


def test_bfloat16_trains_too(trainer: Trainer[Toy]) -> None:
    result = trainer.replace(precision="bfloat16").run(progress=False)

    assert all(math.isfinite(loss) for loss in result.losses)
    assert not result.zero_effect


def test_the_lora_files_metadata_holds_no_path(trainer: Trainer[Toy], tmp_path: Path) -> None:
    result = trainer.run(progress=False)

    text = " ".join(result.lora.metadata.values())
    assert str(tmp_path) not in text
    assert result.lora.metadata["ss_steps"] == "10"
    assert result.lora.metadata["ss_base_model_version"] == "toy"
