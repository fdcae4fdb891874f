from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from musubi import AdamW, BlockSwap, FP8Scaled, FullFineTune, Trainer
from musubi.core.errors import ConfigError
from musubi.testing.toy import Toy
from musubi.training.fitting import fit_context, launched_divided


def test_policies_learn_what_is_trained_and_how(trainer: Trainer[Toy]) -> None:
    full = trainer.replace(network=FullFineTune(), accumulate=1).with_optimizer(AdamW(fused_backward=True))

    lora, whole = fit_context(trainer), fit_context(full)

    assert (lora.training, lora.trains_base, lora.fused_backward, lora.divided) == (True, False, False, False)
    assert (whole.training, whole.trains_base, whole.fused_backward) == (True, True, True)
    assert lora.blocks == Toy().depth


@pytest.mark.parametrize(
    ("flag", "world", "divided"),
    [
        ("true", "2", True),
        ("1", "8", True),
        ("YES", "2", True),
        ("false", "2", False),
        ("", "2", False),
        ("true", "1", False),
        ("true", None, False),
        (None, "2", False),
    ],
)
def test_a_launcher_that_divides_models_is_known(
    flag: str | None, world: str | None, monkeypatch: pytest.MonkeyPatch, *, divided: bool
) -> None:
    for name, value in (("ACCELERATE_USE_FSDP", flag), ("WORLD_SIZE", world)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)

    assert launched_divided() is divided


def test_a_files_form_is_asked_for_where_it_matters(trainer: Trainer[Toy], tmp_path: Path) -> None:
    file = tmp_path / "dit.safetensors"
    save_file({"blocks.0.mlp.weight": torch.ones(4, 4).to(torch.float8_e4m3fn)}, file)
    stored = trainer.replace(model=Toy().with_weights(dit=file))

    assert fit_context(stored).stored is None
    assert fit_context(stored.with_memory(BlockSwap(blocks=1))).stored is None
    for changed in ({"memory": (FP8Scaled(),)}, {"network": FullFineTune()}):
        with pytest.raises(ConfigError, match="float8_e4m3fn"):
            stored.replace(**changed)
