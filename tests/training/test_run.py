from __future__ import annotations

import itertools
import math
import sys
import threading
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file

from musubi import (
    AdamW,
    Cache,
    CancelToken,
    ConfigError,
    Constant,
    Event,
    Finished,
    FP8Scaled,
    GradientCheckpointing,
    Pipeline,
    Request,
    RunError,
    Sampled,
    Saved,
    Started,
    StepEnded,
    Trainer,
    Uniform,
    Warned,
)
from musubi.testing.toy import Toy, ToyConditions, ToyDenoiser
from musubi.training import state
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

    names = ("step", "taken", "settings", "data", "trained", "optimizer", "averages", "losses", "rates")
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
    taken = RunState.load(run.state).taken

    assert taken == 6  # four batches an epoch, two a step: three steps end in the middle of the second epoch


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


def test_a_run_that_is_left_is_cancelled_and_one_whose_block_fails_has_failed(trainer: Trainer[Toy]) -> None:
    heard: list[Event] = []
    with trainer.start(on=[heard.append]) as run:
        for event in run:
            if isinstance(event, StepEnded):
                break
    assert heard[-1] == Finished(step=1, reason="cancelled")

    run = trainer.start(on=[heard.append])
    with pytest.raises(ZeroDivisionError), run:
        _ = [1 // (not isinstance(event, StepEnded)) for event in run]
    assert heard[-1] == Finished(step=1, reason="failed")


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


def test_a_cancelled_run_does_not_replace_the_file_of_a_complete_one(trainer: Trainer[Toy]) -> None:
    complete = trainer.run(progress=False)
    before = complete.path.read_bytes()

    run = run_until(trainer, 2)

    assert complete.path.read_bytes() == before
    assert run.result.path.name == "lora-step00000002.safetensors"
    assert run.state.name == "lora-step00000002-state"


def test_a_file_that_will_be_replaced_is_told_before_the_first_step(trainer: Trainer[Toy]) -> None:
    trainer.run(progress=False)

    first = next(iter(trainer.start()))

    assert isinstance(first, Warned)
    assert "lora.safetensors exists already" in first.message


def test_fewer_steps_than_the_state_has_taken_are_refused(trainer: Trainer[Toy]) -> None:
    run = run_until(trainer, 4)

    with pytest.raises(ConfigError, match=r"steps: the state is at step 4 already, asked for 3"):
        trainer.replace(steps=3).run(resume=run.state, progress=False)


def test_a_complete_run_that_is_resumed_says_that_nothing_is_left(trainer: Trainer[Toy]) -> None:
    result = trainer.run(progress=False)

    events = list(trainer.start(resume=result.state))

    assert any("nothing is left" in e.message for e in events if isinstance(e, Warned))
    assert not any(isinstance(e, StepEnded) for e in events)


def test_resume_auto_begins_anew_and_then_goes_on(trainer: Trainer[Toy]) -> None:
    with trainer.start(resume="auto") as run:
        for event in run:
            if isinstance(event, StepEnded) and event.step == 3:
                run.cancel()

    events = list(trainer.start(resume="auto"))

    assert [e.step for e in events if isinstance(e, StepEnded)] == list(range(4, 11))


def test_latest_is_the_state_saved_last_under_this_very_name(trainer: Trainer[Toy]) -> None:
    trainer.run(progress=False)
    trainer.replace(name="lora2").run(progress=False)

    shorter = run_until(trainer.replace(seed=8), 3)

    assert state.latest(trainer.output, "lora") == shorter.state


def test_policies_that_change_the_weights_cannot_join_or_leave_a_run(trainer: Trainer[Toy]) -> None:
    run = run_until(trainer, 2)

    with pytest.raises(ConfigError, match="weights_changed_by"):
        trainer.with_memory(FP8Scaled()).run(resume=run.state, progress=False)
    assert trainer.with_memory(GradientCheckpointing()).run(resume=run.state, progress=False).steps == 10


def test_callbacks_hear_the_end_of_a_run_that_fails(trainer: Trainer[Toy]) -> None:
    heard: list[Event] = []

    def listen(event: Event) -> None:
        heard.append(event)
        if isinstance(event, StepEnded) and event.step == 3:
            raise KeyboardInterrupt

    run = trainer.start(on=[listen])
    with pytest.raises(KeyboardInterrupt), run:
        list(run)

    assert heard[-1] == Finished(step=3, reason="failed")
    assert RunState.load(run.state).step == 3


def test_a_run_that_is_over_cannot_be_iterated_again(trainer: Trainer[Toy]) -> None:
    run = trainer.start()
    list(run)

    with pytest.raises(ConfigError, match="is over"):
        list(run)


def test_what_another_library_user_set_in_accelerate_does_not_change_a_run(
    trainer: Trainer[Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate.state import GradientState

    plain = trainer.run(progress=False)
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "5")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    GradientState()._set_sync_gradients(False)

    again = trainer.replace(output=tmp_path / "again").run(progress=False)

    GradientState()._set_sync_gradients(True)
    assert again.losses == plain.losses


def test_two_runs_that_take_turns_are_what_each_is_alone(trainer: Trainer[Toy], tmp_path: Path) -> None:
    alone = trainer.run(progress=False)
    one = trainer.replace(output=tmp_path / "one").start()
    other = trainer.replace(output=tmp_path / "other", accumulate=1, seed=9).start()

    for _ in itertools.zip_longest(one, other):
        pass

    assert one.result.losses == alone.losses


def test_samples_take_the_size_of_the_commonest_training_bucket(trainer: Trainer[Toy]) -> None:
    trainer = trainer.replace(steps=1).with_samples("picture number 1")

    drawn = next(e for e in trainer.start() if isinstance(e, Sampled))

    common = next(iter(trainer.cache.manifest().buckets))
    assert drawn.images[0].size == tuple(map(int, common.split("x")))  # type: ignore[attr-defined]


def test_samples_during_training_are_the_pipelines_own_pictures(trainer: Trainer[Toy]) -> None:
    request = Request("picture number 1", size=(32, 32), seed=5)
    result = trainer.with_samples(request).run(progress=False)

    drawn = Pipeline(model=Toy()).with_lora(result.lora).draw(request)

    with PIL.Image.open(result.samples[-1]) as sampled:
        assert (np.asarray(sampled) == drawn.to_numpy()).all()


def test_a_cancelled_run_draws_no_more_samples(trainer: Trainer[Toy]) -> None:
    token = CancelToken()
    token.cancel()

    events = list(trainer.with_samples("picture number 1").start(cancel=token))

    assert not any(isinstance(e, Sampled | StepEnded) for e in events)
    assert events[-1] == Finished(step=0, reason="cancelled")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_files_have_the_users_ordinary_permissions(trainer: Trainer[Toy], tmp_path: Path) -> None:
    ordinary = tmp_path / "ordinary"
    ordinary.touch()

    result = trainer.run(progress=False)

    written = [result.path, *result.state.iterdir()]
    assert {path.stat().st_mode for path in written} == {ordinary.stat().st_mode}


def test_samples_that_fail_do_not_end_the_training(trainer: Trainer[Toy]) -> None:
    diverging = trainer.replace(steps=2, accumulate=1, max_grad_norm=None, schedule=Constant(), timesteps=Uniform())
    diverging = diverging.with_optimizer(AdamW(lr=1e30)).with_samples("picture number 1", every=1)

    events: list[Event] = []
    with pytest.raises(RunError), diverging.start(on=[events.append]) as run:
        list(run)

    assert any("no samples at step 1" in e.message for e in events if isinstance(e, Warned))


class Greedy(Toy):
    """A toy whose network finds no memory left unless gradients are computed, which a picture does not need."""

    def denoiser(self) -> ToyDenoiser:
        return GreedyDenoiser(self)


class GreedyDenoiser(ToyDenoiser):
    def velocity(
        self, model: torch.nn.Module, x: torch.Tensor, sigma: torch.Tensor, cond: ToyConditions
    ) -> torch.Tensor:
        if not torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")
        return super().velocity(model, x, sigma, cond)


def test_samples_for_which_there_is_no_memory_do_not_end_the_training(trainer: Trainer[Toy], tmp_path: Path) -> None:
    plain = trainer.run(progress=False)
    greedy = trainer.replace(model=Greedy(), output=tmp_path / "greedy").with_samples("picture number 1")

    events = list(greedy.start())

    warned = [event.message for event in events if isinstance(event, Warned)]
    assert [message.partition(":")[0] for message in warned] == ["no samples at step 0", "no samples at step 10"]
    assert all("out of device memory" in message for message in warned)
    assert tuple(event.loss for event in events if isinstance(event, StepEnded)) == plain.losses
