from __future__ import annotations

from pathlib import Path

import pytest

from musubi import ConfigError, LoRA, Request, Trainer
from musubi.testing.toy import Toy


def test_a_trainer_survives_toml_and_json(trainer: Trainer[Toy]) -> None:
    kind = Trainer[Toy]

    assert Trainer.from_toml(trainer.to_toml(), plugins=[Toy]) == trainer
    assert Trainer.from_json(trainer.to_json(), plugins=[Toy]) == trainer
    assert kind is not None


def test_with_returns_a_new_trainer_and_leaves_the_old(trainer: Trainer[Toy]) -> None:
    other = trainer.with_network(LoRA(rank=2)).with_checkpoints(save_every=5)

    assert (other.network.rank, other.save_every) == (2, 5)
    assert (trainer.network.rank, trainer.save_every) == (4, None)


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
