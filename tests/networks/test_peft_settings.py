from __future__ import annotations

import json

import pytest
import torch

from musubi.networks.peft_settings import PEFT_METADATA, PeftSettings
from musubi.networks.reading import modules_in


def _metadata(**settings: object) -> dict[str, str]:
    return {PEFT_METADATA: json.dumps({f"transformer.{name}": value for name, value in settings.items()})}


def test_the_strength_is_that_of_peft_for_every_module() -> None:
    peft = pytest.importorskip("peft")
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(4, 4), "b": torch.nn.Linear(4, 4)})
    choice = {"r": 4, "lora_alpha": 2, "alpha_pattern": {"b": 6}, "use_rslora": True}
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["a", "b"], **choice))
    tensors = {f"transformer.{n}.lora_{x}.weight": torch.ones(4, 4) for n in "ab" for x in "AB"}

    found = modules_in(tensors, _metadata(**choice), where="file")

    scales = {name: adapted.base_model.model[name].scaling["default"] for name in "ab"}
    assert {name: weights.strength for name, weights in found.items()} == pytest.approx(scales)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', '{"lora_alpha": "many", "alpha_pattern": 3}'])
def test_an_entry_that_says_nothing_changes_nothing(text: str) -> None:
    assert PeftSettings.of({PEFT_METADATA: text}).alpha_of("a", 8) is None


def test_patterns_are_words_and_never_run_as_expressions() -> None:
    settings = PeftSettings.of(_metadata(lora_alpha=4, alpha_pattern={r"^blocks\.0\.q$": 2, "(": 3, "(a+)+$": 5}))

    found = {name: settings.alpha_of(name, 8) for name in ("blocks.0.q", "model.blocks.0.q", "blocks.1.q", "a" * 40)}

    assert found == {"blocks.0.q": 2, "model.blocks.0.q": 2, "blocks.1.q": 4, "a" * 40: 4}
