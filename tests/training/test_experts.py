"""Two experts in one run: each learns from its own noise levels, in its own adapter, which has its own file."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from musubi import (
    EMA,
    AdamW,
    BlockSwap,
    Cache,
    ConfigError,
    Dataset,
    ExpertTraining,
    FullFineTune,
    GradientCheckpointing,
    LoRA,
    Request,
    StepEnded,
    Trainer,
    Uniform,
    Validation,
)
from musubi.core.events import Event
from musubi.inference.pipeline import Pipeline
from musubi.memory.policy import MemoryPolicy
from musubi.networks.file import LoRAFile
from musubi.noise.timesteps import ResolutionShift, Shift
from musubi.testing.toy import Toy
from musubi.training.accumulation import Accumulation
from musubi.training.experts import file_names, levels_of, trained_experts
from musubi.training.material import Material
from musubi.training.processes import Processes
from musubi.training.setup import Setup
from tests.training.conftest import write_pictures
from tests.two_experts import BOUNDARY, HIGH, LOW, TwoToys

SMALL = LoRA(rank=2)


@pytest.fixture(scope="module")
def two_cache(tmp_path_factory: pytest.TempPathFactory) -> Cache[TwoToys]:
    folder = tmp_path_factory.mktemp("two")
    pictures = Dataset.from_folder(write_pictures(folder / "pictures"), resolution=48)
    data = pictures.with_geometry(TwoToys().geometry).with_batch_size(2).with_validation(share=0.3)
    return Cache(folder / "cache", model=TwoToys()).build(data, progress=False)


@pytest.fixture
def two(two_cache: Cache[TwoToys], tmp_path: Path) -> Trainer[TwoToys]:
    return Trainer(
        model=TwoToys(),
        cache=two_cache,
        steps=6,
        output=tmp_path / "out",
        seed=3,
        network=SMALL,
        optimizer=AdamW(lr=1e-2),
    )


def run(trainer: Trainer[TwoToys]) -> list[StepEnded]:
    events: list[Event] = []
    trainer.run(on=[events.append], progress=False)
    return [event for event in events if isinstance(event, StepEnded)]


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)


def equal(one: Path, other: Path) -> bool:
    ours, theirs = tensors(one), tensors(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_both_have_files_of_their_own_that_say_whose_they_are(two: Trainer[TwoToys]) -> None:
    result = two.with_experts(networks={"low": LoRA(rank=3)}, rates={"low": 0.5}).run(progress=False)

    assert result.experts == {"high": two.output / "lora-high.safetensors", "low": two.output / "lora-low.safetensors"}
    high, low = (LoRAFile.load(path) for path in result.experts.values())
    told = [(file.metadata["musubi.expert"], file.metadata["ss_network_dim"]) for file in (high, low)]
    assert told == [("high", "2"), ("low", "3")]
    assert [file.metadata["ss_learning_rate"] for file in (high, low)] == ["0.01", "0.005"]
    assert [file.metadata["musubi.timestep_range"] for file in (high, low)] == ["0.75,1", "0,0.75"]
    assert [file.metadata["ss_sd_model_name"] for file in (high, low)] == ["toy-dit_high", "toy-dit_low"]
    assert high.metadata["musubi.config"] == low.metadata["musubi.config"]
    assert [lora.metadata["musubi.expert"] for lora in result.loras] == ["high", "low"]
    assert {next(iter(file.modules.values())).rank for file in (high, low)} == {2, 3}


def test_the_levels_are_those_of_a_run_with_one_model(two: Trainer[TwoToys]) -> None:
    stratified = two.with_timesteps(Uniform(strata=4)).replace(accumulate=3)
    alone = Trainer(
        model=Toy(),
        cache=attrs.evolve(two.cache, model=Toy()),  # type: ignore[arg-type]
        **{
            name: getattr(stratified, name)
            for name in ("steps", "seed", "network", "optimizer", "timesteps", "accumulate")
        },
        output=two.output / "alone",
    )

    ours, theirs = run(stratified), run(alone)  # type: ignore[arg-type]

    assert [step.sigma for step in ours] == [step.sigma for step in theirs]
    levels = [level for step in ours for level in step.sigma]
    assert {level >= BOUNDARY for level in levels} == {True, False}


def test_gradients_reach_only_the_experts_whose_range_was_drawn(two: Trainer[TwoToys]) -> None:
    trainer, processes, met = two.with_timesteps(Uniform(low=0.5)), Processes("cpu"), set[tuple[str, ...]]()

    with ExitStack() as stack:
        setup = Setup.open(trainer, processes, Material.open(trainer, processes), stack)
        batches = Accumulation(setup, trainer, taken=0)
        stack.callback(batches.close)
        for number in range(12):
            (seen,) = batches.add_up(step=number + 1, taken=number)
            drawn = {"high" if level >= BOUNDARY else "low" for level in seen.sigma}
            reached = {name.split(".")[1] for name, p in setup.trained.named_parameters() if p.grad is not None}
            assert reached == drawn
            assert all(p.grad is None for p in setup.model.parameters())
            met.add(tuple(sorted(drawn)))
            setup.optimizer.zero_grad()

    assert met == {("high",), ("low",), ("high", "low")}


def test_a_batch_over_both_ranges_gives_each_expert_the_gradient_of_its_items(two: Trainer[TwoToys]) -> None:
    """A run of both, whose batches are split, moves each adapter as a run does in which the other stands still."""
    plain = two.with_timesteps(Uniform(low=0.5, high=1.0)).replace(steps=3, max_grad_norm=None)
    both = plain.replace(output=two.output / "both")
    still = {
        name: plain.with_experts(rates={name: 1e-12}).replace(output=two.output / name) for name in ("high", "low")
    }

    steps = run(both)
    for trainer in still.values():
        run(trainer)

    assert any({level >= BOUNDARY for level in step.sigma} == {True, False} for step in steps)
    for name, other in (("high", "low"), ("low", "high")):
        assert equal(both.output / f"lora-{name}.safetensors", still[other].output / f"lora-{name}.safetensors")


@pytest.mark.parametrize(
    "policies",
    [(BlockSwap(blocks=1),), (GradientCheckpointing(), BlockSwap(blocks=1))],
    ids=["swap", "checkpointed and swap"],
)
def test_taking_turns_changes_no_bit(two: Trainer[TwoToys], policies: tuple[MemoryPolicy, ...]) -> None:
    plain, swapped = (two.replace(output=two.output / name, accumulate=2) for name in ("plain", "swapped"))
    samples = Request("picture number 1", steps=4)

    run(plain.with_samples(samples))
    run(swapped.with_memory(*policies).with_samples(samples))

    for name in ("high", "low"):
        assert equal(plain.output / f"lora-{name}.safetensors", swapped.output / f"lora-{name}.safetensors")
    drawn = [sorted((trainer.output / "samples").iterdir()) for trainer in (plain, swapped)]
    assert [path.read_bytes() for path in drawn[0]] == [path.read_bytes() for path in drawn[1]] != []


def test_a_run_that_is_resumed_goes_on_bit_for_bit_with_averages_and_validation(two: Trainer[TwoToys]) -> None:
    trainer = two.with_ema(EMA()).with_validation(Validation(every=2)).with_checkpoints(state_every=3)
    whole = trainer.run(progress=False)
    state = trainer.output / "lora-step00000003-state"

    again = trainer.replace(output=two.output / "again").run(resume=state, progress=False)

    assert [one.loss for one in again.validations] == [one.loss for one in whole.validations]
    for name in ("high", "low"):
        assert equal(whole.experts[name], again.experts[name])
        assert (two.output / f"lora-{name}-best.safetensors").exists()


def test_one_expert_alone_has_its_part_of_the_distribution_and_only_its_model(two: Trainer[TwoToys]) -> None:
    trainer = two.with_timesteps(Shift(shift=3.0)).with_experts("low")

    steps = run(trainer)

    assert trainer.noise_levels == Shift(shift=3.0, high=BOUNDARY, preserve_shape=True)
    assert all(level <= BOUNDARY for step in steps for level in step.sigma)
    assert [path.name for path in two.output.glob("*.safetensors")] == ["lora-low.safetensors"]


def test_alone_an_expert_that_is_trained_is_sampled_with_the_other(two: Trainer[TwoToys]) -> None:
    request = Request("picture number 1", size=(48, 48), frames=1, steps=4, seed=1)
    result = two.with_experts("low").with_samples(request).run(progress=False)

    drawn = Pipeline(model=two.model).with_lora(result.lora).draw(request)

    with Image.open(result.samples[-1]) as ours:
        assert np.array_equal(np.asarray(ours), drawn.to_numpy())


def test_samples_of_both_are_what_the_pipeline_draws_with_both_files(two: Trainer[TwoToys]) -> None:
    request = Request("picture number 1", size=(48, 48), frames=1, steps=4, seed=1)
    result = two.with_samples(request).run(progress=False)
    pipeline = Pipeline(model=two.model)
    for path in result.experts.values():
        pipeline = pipeline.with_lora(path)

    with Image.open(result.samples[-1]) as ours:
        assert np.array_equal(np.asarray(ours), pipeline.draw(request).to_numpy())


def test_a_shared_adapter_is_one_file_that_both_experts_train(two: Trainer[TwoToys]) -> None:
    result = two.with_experts(shared_adapter=True).run(progress=False)

    assert result.path == two.output / "lora.safetensors"
    assert result.experts == {}
    assert LoRAFile.load(result.path).metadata["musubi.expert"] == "high, low"


def test_the_model_of_one_expert_can_be_trained_itself(two: Trainer[TwoToys]) -> None:
    trainer = two.replace(
        network=FullFineTune(weights="float32"), steps=2, experts=ExpertTraining(train="high"), optimizer=AdamW(lr=1e-4)
    )

    trainer.run(progress=False)

    assert (two.output / "lora-high.safetensors").exists()


@pytest.mark.parametrize(
    ("experts", "changes", "expected"),
    [
        ({"train": "hihg"}, {}, r"experts\.train: there is no expert 'hihg'; did you mean 'high'"),
        ({"train": "low", "rates": {"high": 2.0}}, {}, r"experts\.rates\.high: no such expert is trained"),
        ({}, {"network": FullFineTune()}, r"experts\.train: the models themselves are trained one at a time"),
        ({}, {"initial": "a.safetensors"}, r"initial: is one LoRA, but each expert has its own"),
        ({}, {"timesteps": Uniform(high=0.5)}, r"timesteps: none between 0 and 0.5 is one of the expert 'high'"),
        ({"train": "low"}, {"timesteps": Uniform(low=0.5, high=0.9)}, r"timesteps: reach over the levels"),
        ({"train": "low"}, {"validation": Validation()}, r"validation\.sigmas: 0.875 is no level"),
    ],
)
def test_what_does_not_fit_is_said_when_the_trainer_is_made(
    two: Trainer[TwoToys], experts: dict[str, object], changes: dict[str, object], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        two.replace(experts=ExpertTraining(**experts), **changes)  # type: ignore[arg-type]


def test_a_model_without_experts_has_none_to_train(trainer: Trainer[Toy]) -> None:
    with pytest.raises(ConfigError, match="has one model for all noise levels"):
        trainer.with_experts("high")


def test_one_adapter_has_no_networks_of_its_own() -> None:
    with pytest.raises(ConfigError, match="networks: there is one adapter for both"):
        ExpertTraining(shared_adapter=True, networks={"high": SMALL})


def test_a_trainer_of_experts_survives_toml(two: Trainer[TwoToys]) -> None:
    asked = two.with_experts(networks={"low": LoRA(rank=8)}, rates={"high": 0.5})

    assert Trainer.from_toml(asked.to_toml(), plugins=[TwoToys]) == asked


def test_limits_of_the_users_that_lie_inside_an_expert_stay(two: Trainer[TwoToys]) -> None:
    inside = Uniform(low=0.8, high=0.9)
    cut = ResolutionShift(low=0.5, high=0.9, preserve_shape=True)

    assert levels_of(two.with_timesteps(inside)) == inside
    assert trained_experts(two.with_timesteps(inside)) == (HIGH,)
    assert levels_of(two.with_timesteps(cut).with_experts("low")) == attrs.evolve(cut, high=BOUNDARY)
    assert file_names(two.with_experts("high")) == {HIGH: "lora-high"}


def test_a_plan_counts_one_expert_and_both_adapters(two: Trainer[TwoToys]) -> None:
    one, both = two.with_experts("low").plan(), two.plan()
    weights = sum(p.numel() for p in two.model.denoiser().empty(LOW).parameters()) * 4

    assert "lora of rank 2 and lora of rank 2" in both.title
    assert one.peak is not None
    assert both.peak is not None
    assert 0 < both.peak.total - one.peak.total < weights
    assert both.host - one.host >= 2 * weights
