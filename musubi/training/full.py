"""What cannot be combined with training the model itself."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from musubi.core.errors import Issue, shown
from musubi.training.experts import file_names, trained_experts
from musubi.training.files import Written

if TYPE_CHECKING:
    from musubi.architecture import Architecture
    from musubi.training.trainer import Trainer


def full_issues(trainer: Trainer[Architecture]) -> Iterable[Issue]:
    """Yield what does not fit a trainer whose network is the model itself; nothing for adapters."""
    if not trainer.network.trains_base:
        return
    if trainer.initial is not None:
        hint = "with_base_lora() merges a LoRA into the model before training"
        yield Issue("initial", "is a LoRA to train further, but the model itself is trained", hint)
    if trainer.prior is not None and trainer.prior.target == "base":
        hint = 'target="data": pictures that the base model drew before'
        yield Issue("prior.target", "is 'base', but the model as it was before training is gone", hint)
    optimizer, narrow = trainer.optimizer, getattr(trainer.network, "weights", None) == "bfloat16"
    if narrow and not (optimizer.separable or optimizer.rounds_itself):
        hint = (
            "AdamW, AdamW8bit, Adafactor, Lion and ProdigyPlusScheduleFree round stochastically; or weights='float32'"
        )
        yield Issue("optimizer", f"{optimizer.kind} would lose small updates of bfloat16 weights to rounding", hint)
    if trainer.precision == "float32" and getattr(trainer.network, "weights", None) == "bfloat16":
        hint = 'set precision="bfloat16", or weights="float32"'
        yield Issue("network.weights", "is 'bfloat16', but the model computes in float32", hint)
    yield from _place_issues(trainer)


def stored_issues(trainer: Trainer[Architecture], stored: str | None) -> Iterable[Issue]:
    """Yield that weights which a file holds quantised cannot be trained; ``stored`` is in what it holds them."""
    if trainer.network.trains_base and stored is not None:
        component = trained_experts(trainer)[0].component
        message = f"is quantised ({stored}); what training has to change is lost in it"
        yield Issue(f"model.weights.{component}", message, "give the checkpoint in bfloat16, or train a LoRA over it")


def _place_issues(trainer: Trainer[Architecture]) -> Iterable[Issue]:
    (expert, name), *_ = file_names(trainer).items()
    base = trainer.model.weight(expert.component)
    final = Written().path(trainer.output, name)
    if not base.on_hub and Path(base.location).absolute() == final.absolute():
        message = f"{shown(final)} is the base model's own file, which the run would replace"
        yield Issue("output", message, "give another output or name")
