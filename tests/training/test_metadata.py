from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest

import musubi
from musubi import About, GradientCheckpointing, LogitNormal, LoRA, LoRAFile, Sigmoid, Targets, TimestepSampler, Trainer
from musubi.networks.full import FullFineTune
from musubi.testing.toy import Toy
from musubi.training.metadata import Moment, described
from musubi.training.settings import settings


@pytest.fixture
def moment(trainer: Trainer[Toy]) -> Moment:
    return Moment(
        step=3,
        total=10,
        taken=6,
        per_step=2,
        batches=4,
        items=tuple(cached.item for cached in trainer.cache.items()),
        data="0123",
        rate=1e-2,
        precision="bfloat16",
        began=datetime(2026, 1, 2, tzinfo=UTC),
    )


def test_a_saved_file_carries_what_its_run_was(trainer: Trainer[Toy]) -> None:
    result = trainer.with_checkpoints(save_every=2).replace(steps=4).run(progress=False)

    final = LoRAFile.load(result.path).metadata
    on_the_way = LoRAFile.load(result.path.with_name("lora-step00000002.safetensors")).metadata

    assert {name: final[name] for name in ("ss_steps", "ss_epoch", "ss_num_epochs", "ss_num_batches_per_epoch")} == {
        "ss_steps": "4",
        "ss_epoch": "2",
        "ss_num_epochs": "2",
        "ss_num_batches_per_epoch": "4",
    }
    assert (on_the_way["ss_steps"], on_the_way["ss_epoch"]) == ("2", "1")
    assert final["ss_session_id"] == on_the_way["ss_session_id"]
    assert final["ss_mixed_precision"] == "no"
    assert json.loads(final["musubi.config"]) == settings(trainer)
    assert final["musubi.version"] == musubi.__version__


def test_a_file_that_goes_on_from_another_tells_the_ranks_that_it_has(trainer: Trainer[Toy], tmp_path: Path) -> None:
    first = trainer.replace(steps=1, network=LoRA(rank=3, alpha=6)).run(progress=False)

    result = trainer.replace(steps=1, output=tmp_path / "again").with_initial(first.path).run(progress=False)

    told = LoRAFile.load(result.path).metadata
    assert (told["ss_network_dim"], told["ss_network_alpha"]) == ("3", "6.0")
    assert not any(str(tmp_path) in text for text in told.values())


@pytest.mark.parametrize(("taken", "epoch"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2)])
def test_epochs_count_from_one(taken: int, epoch: int, moment: Moment) -> None:
    assert attrs.evolve(moment, taken=taken).epoch == epoch


def test_the_network_is_told_with_what_is_unusual_about_it(trainer: Trainer[Toy], moment: Moment) -> None:
    network = LoRA(rank=4, alpha=2, plus_ratio=4.0, targets=Targets(exclude=(r".*mlp",)))

    told = described(trainer.with_network(network), moment)

    assert (told["ss_network_module"], told["ss_network_dim"], told["ss_network_alpha"]) == ("musubi.lora", "4", "2.0")
    assert told["ss_network_dropout"] == "None"
    arguments = json.loads(told["ss_network_args"])
    assert (set(arguments), arguments["plus_ratio"]) == ({"plus_ratio", "targets"}, 4.0)
    assert "ss_network_args" not in described(trainer, moment)
    assert described(trainer, moment)["ss_network_dropout"] == "0.2"


def test_what_the_maker_says_is_in_the_model_specification(trainer: Trainer[Toy], moment: Moment) -> None:
    about = About(title="Clay", author="me", description="d", license="mit", tags=("a", "b c"), comment="third try")

    told = described(trainer.with_about(about), moment)
    silent = described(trainer, moment)

    assert {name.removeprefix("modelspec."): text for name, text in told.items() if name.startswith("modelspec.")} == {
        "sai_model_spec": "1.0.0",
        "title": "Clay",
        "author": "me",
        "description": "d",
        "license": "mit",
        "tags": "a,b c",
        "resolution": told["modelspec.resolution"],
        "date": told["modelspec.date"],
    }
    assert told["ss_training_comment"] == "third try"
    assert (silent["modelspec.title"], silent["ss_training_comment"]) == (trainer.name, "None")
    assert "modelspec.author" not in silent
    assert datetime.fromisoformat(told["modelspec.date"]).tzinfo is not None


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (LogitNormal(mean=0.5, std=2.0), {"ss_logit_mean": "0.5", "ss_logit_std": "2.0", "ss_sigmoid_scale": "None"}),
        (Sigmoid(scale=1.5), {"ss_sigmoid_scale": "1.5", "ss_mode_scale": "None", "ss_logit_mean": "None"}),
        (musubi.Mode(), {"ss_mode_scale": "1.29", "ss_sigmoid_scale": "None", "ss_timestep_sampling": "mode"}),
        (musubi.Shift(shift=3.0), {"ss_discrete_flow_shift": "3.0"}),
    ],
)
def test_noise_levels_are_told_as_far_as_their_distribution_has_them(
    levels: TimestepSampler, expected: dict[str, str], trainer: Trainer[Toy], moment: Moment
) -> None:
    told = described(trainer.with_timesteps(levels), moment)

    assert {name: told[name] for name in expected} == expected


def test_a_limited_range_is_told_in_thousandths(trainer: Trainer[Toy], moment: Moment) -> None:
    told = described(trainer.with_timesteps(Sigmoid(high=0.875)), moment)

    assert told["modelspec.timestep_range"] == "0,875"
    assert told["musubi.timestep_range"] == "0,0.875"
    assert "modelspec.timestep_range" not in described(trainer, moment)


def test_memory_policies_are_told(trainer: Trainer[Toy], moment: Moment) -> None:
    told = described(trainer.with_memory(GradientCheckpointing()), moment)

    assert told["ss_gradient_checkpointing"] == "True"
    assert (told["ss_fp8_base"], told["ss_full_bf16"]) == ("False", "False")


def test_the_base_model_is_told_by_name_and_content_and_nothing_by_its_place(
    trainer: Trainer[Toy], moment: Moment, tmp_path: Path
) -> None:
    base = tmp_path / "dit.safetensors"
    base.write_bytes(b"weights")
    elsewhere = base.with_name("again.safetensors")
    elsewhere.write_bytes(b"weights")

    told = described(trainer.replace(model=Toy().with_weights(dit=base)), moment)
    again = described(trainer.replace(model=Toy().with_weights(dit=elsewhere)), moment)

    assert told["ss_sd_model_name"] == "dit.safetensors"
    assert told["musubi.base"] == again["musubi.base"]
    assert "musubi.base" not in described(trainer, moment)
    assert tmp_path.as_posix() not in json.dumps(told)


def test_the_data_is_told(trainer: Trainer[Toy], moment: Moment) -> None:
    told = described(trainer, moment)

    (pictures,) = json.loads(told["ss_datasets"])
    assert (pictures["num_items"], pictures["batch_size_per_device"]) == (7, 2)
    assert told["ss_num_train_items"] == "7"
    assert told["musubi.data"] == "0123"
    width, height = pictures["resolution"]
    assert told["modelspec.resolution"] == f"{width}x{height}"


def test_a_trained_model_is_no_lora(trainer: Trainer[Toy], moment: Moment) -> None:
    told = described(trainer.with_network(FullFineTune(weights="bfloat16")), moment)

    assert not [name for name in told if name.startswith("ss_network")]
    assert (told["ss_full_bf16"], told["modelspec.architecture"]) == ("True", "toy")
    assert described(trainer.with_network(FullFineTune()), moment)["ss_full_bf16"] == "False"
