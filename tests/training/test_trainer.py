from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from musubi import (
    EMA,
    About,
    ConfigError,
    DoRA,
    GradientCheckpointing,
    Huber,
    Lion,
    LoRA,
    PriorPreservation,
    Request,
    Rex,
    Rule,
    SigmaSqrt,
    Targets,
    Trainer,
    Uniform,
    Validation,
)
from musubi.inference.loras import LoRAUse
from musubi.testing.toy import Toy


def full(trainer: Trainer[Toy], *, long: bool = False) -> Trainer[Toy]:
    """Return a trainer with something else than the default in every field."""
    return trainer.replace(
        model=Toy(dim=16).with_weights(dit="toy.safetensors"),
        steps=None if long else 12,
        epochs=3 if long else None,
        name="clay",
        about=About(title="Clay", tags=("clay",)),
        seed=5,
        network=DoRA(
            rank=3,
            targets=Targets(exclude=(r"blocks\.0\..*",)),
            rules=(Rule(modules=r"blocks\.1\..*", rate=0.5),),
            max_norm=1.0,
        ),
        initial=Path("initial.safetensors"),
        base_loras=(LoRAUse(path=Path("base.safetensors"), weight=0.5, merge=True),),
        optimizer=Lion(lr=1e-3),
        schedule=Rex(warmup=2),
        timesteps=Uniform(strata=4),
        weighting=SigmaSqrt(),
        loss=Huber(delta=0.5),
        prior=PriorPreservation(cache=trainer.cache, weight=0.5, target="data"),
        ema=EMA(decay=0.9),
        validation=Validation(every=4),
        memory=(GradientCheckpointing(),),
        precision="bfloat16",
        device="cpu",
        accumulate=3,
        max_grad_norm=0.5,
        on_nonfinite="skip",
        save_every=1,
        save_every_epochs=2,
        state_every=3,
        state_every_epochs=4,
        keep_last=5,
        keep_last_states=6,
        samples=(Request("clay", seed=None, frames=5),),
        sample_every=7,
        sample_every_epochs=8,
    )


@pytest.mark.parametrize("long", [False, True])
def test_a_trainer_with_every_field_survives_toml_and_json(trainer: Trainer[Toy], long: bool) -> None:
    asked = full(trainer, long=long)

    plain = Trainer(model=Toy(), cache=trainer.cache)
    same = {field.name for field in attrs.fields(Trainer) if getattr(asked, field.name) == getattr(plain, field.name)}
    # the toy has no experts; tests/training/test_experts.py has a trainer of some
    assert same == {"cache", "experts", "steps" if long else "epochs"}, "this test knows every field"
    assert Trainer.from_toml(asked.to_toml(), plugins=[Toy]) == asked
    assert Trainer.from_json(asked.to_json(), plugins=[Toy]) == asked


def test_a_lora_in_memory_cannot_be_written_and_says_so(trainer: Trainer[Toy]) -> None:
    result = trainer.replace(steps=1).run(progress=False)

    with pytest.raises(ConfigError, match="save it, and give its path"):
        trainer.with_base_lora(result.lora).to_toml()


def test_with_returns_a_new_trainer_and_leaves_the_old(trainer: Trainer[Toy]) -> None:
    other = trainer.with_network(LoRA(rank=2)).with_checkpoints(save_every=5)

    assert (other.network, other.save_every) == (LoRA(rank=2), 5)
    assert trainer.network != other.network
    assert trainer.save_every is None


def test_every_wrong_field_is_listed_at_once(trainer: Trainer[Toy]) -> None:
    with pytest.raises(ConfigError) as caught:
        trainer.replace(steps=0, accumulate=0, precision="float8")

    assert {issue.path for issue in caught.value.issues} == {"steps", "accumulate", "precision"}


def test_what_does_not_fit_together_is_named_with_the_way_out(trainer: Trainer[Toy]) -> None:
    with pytest.raises(ConfigError) as caught:
        trainer.replace(name="a/b", samples=(Request("x", size=(33, 32), frames=2),))

    assert {issue.path for issue in caught.value.issues} == {"name", "samples[0].size", "samples[0].frames"}
    assert all(issue.hint for issue in caught.value.issues)


def test_a_misspelt_key_in_a_file_names_file_key_and_nearest(trainer: Trainer[Toy], tmp_path: Path) -> None:
    path = trainer.save(tmp_path / "run.toml")
    path.write_text(path.read_text(encoding="utf-8").replace("accumulate", "acumulate"), encoding="utf-8")

    with pytest.raises(ConfigError, match=r"run\.toml.*acumulate.*did you mean 'accumulate'"):
        Trainer.load(path, plugins=[Toy])
