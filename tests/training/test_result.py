from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from musubi import ConfigError, LoRAFile, TrainResult
from musubi.core.events import Validated

RESULT = TrainResult(
    lora=None,
    path=Path("output/clay.safetensors"),
    state=Path("output/clay-state"),
    steps=40,
    reason="completed",
    losses=tuple(1 - i / 40 for i in range(40)),
    rates=(1e-4,) * 40,
    seconds=3725.0,
)
MEASURED = tuple(
    Validated(step=step, loss=loss, bands=(), best=False)
    for step, loss in [(10, 0.5), (20, 0.3), (30, 0.3), (40, float("nan"))]
)


def rows(result: TrainResult) -> str:
    return result._repr_html_()


def test_the_card_says_how_it_went_and_how_to_go_on() -> None:
    text = rows(RESULT)

    assert "40 (completed)" in text
    assert "0.9625 → 0.0625" in text
    assert "1 h 02 min" in text
    assert "trained" in text
    assert "output/clay.safetensors" in text
    assert "trainer.replace(steps=...).run(resume=&quot;output/clay-state&quot;)" in text
    assert "trainer.run(resume=&quot;" in rows(attrs.evolve(RESULT, reason="cancelled"))


def test_the_card_names_the_best_and_where_samples_are() -> None:
    result = attrs.evolve(
        RESULT,
        validations=MEASURED,
        best=Path("output/clay-best.safetensors"),
        samples=(Path("output/samples/a.png"), Path("output/samples/b.png")),
    )

    text = rows(result)

    assert "0.3000 at step 20" in text
    assert "output/clay-best.safetensors" in text
    assert "2 in output/samples" in text


def test_a_run_without_effect_says_so() -> None:
    assert "none: the weights change nothing" in rows(attrs.evolve(RESULT, zero_effect=True))


def test_the_best_is_the_earliest_of_the_lowest() -> None:
    assert RESULT.best_validation is None
    best = attrs.evolve(RESULT, validations=MEASURED).best_validation
    assert best is not None
    assert best.step == 20


def test_a_run_of_no_steps_has_a_card() -> None:
    assert "no steps" in rows(attrs.evolve(RESULT, losses=(), seconds=3.0))


def test_there_is_no_lora_where_the_model_itself_was_trained() -> None:
    with pytest.raises(ConfigError, match=r"its weights are in output/clay\.safetensors"):
        _ = RESULT.lora

    lora = LoRAFile(modules={}, metadata={})
    assert attrs.evolve(RESULT, lora=lora).lora is lora


def test_the_plot_has_validation_losses() -> None:
    labels = [
        str(line.get_label()) for line in attrs.evolve(RESULT, validations=MEASURED[:2]).plot_loss().axes[0].lines
    ]

    assert "validation" in labels
