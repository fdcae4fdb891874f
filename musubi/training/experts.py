"""Training models with several experts: which of them, each with what, on which noise levels, into which files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import attrs

from musubi.core.errors import Issue
from musubi.core.fields import did_you_mean, field, positive
from musubi.core.spec import Spec
from musubi.networks.network import AdapterNetwork, Network

if TYPE_CHECKING:
    from musubi.architecture import Architecture, Expert
    from musubi.noise.timesteps import TimestepSampler
    from musubi.training.trainer import Trainer

BOTH = "both"


def _rates(value: object) -> str | None:
    if not isinstance(value, Mapping):
        return f"must be numbers by the names of experts, got {value!r}"
    found = (f"{name}: {wrong}" for name, rate in value.items() if (wrong := positive(rate)) is not None)
    return next(found, None)


@attrs.frozen(kw_only=True)
class ExpertTraining(Spec):
    """Train both experts of a model in one run, or one of them by name.

    Each expert has an adapter of its own, in a file of its own: ``<name>-high.safetensors`` and
    ``<name>-low.safetensors``. Noise levels are drawn as if there were one model, item by item; the expert whose range
    a level lies in is asked, and learns. One expert alone is trained on that part of the levels which is its own.

    Args:
        train: ``both``, or an expert's name: ``high`` or ``low``.
        networks: Another network than the trainer's for some experts, e.g. of another rank.
        rates: What the optimiser's rate is multiplied by for some experts.
        shared_adapter: Train one adapter on both experts, in one file, as musubi-tuner does.

    Example:
        >>> from musubi import ExpertTraining, LoRA
        >>> ExpertTraining(networks={"low": LoRA(rank=64)}, rates={"high": 0.5}).train
        'both'
    """

    train: str = BOTH
    networks: Mapping[str, Network] = attrs.field(factory=dict)
    rates: Mapping[str, float] = field(factory=dict, check=_rates)
    shared_adapter: bool = False

    def problems(self) -> Iterable[Issue]:
        """Yield what does not fit together."""
        for name, network in self.networks.items():
            if not isinstance(network, AdapterNetwork):
                hint = "give the trainer this network, and train one expert"
                yield Issue(f"networks.{name}", f"{network.title} is no adapter", hint)
        if not self.shared_adapter:
            return
        if self.train != BOTH:
            yield Issue("shared_adapter", f"is shared with nothing: only {self.train!r} is trained", "leave it out")
        for path in ("networks", "rates"):
            if getattr(self, path):
                yield Issue(path, "there is one adapter for both experts", "give the trainer's network and optimiser")


def training_of(trainer: Trainer[Architecture]) -> ExpertTraining:
    """Return how a trainer's experts are trained: those that its noise levels reach, unless it says otherwise."""
    return trainer.experts or ExpertTraining()


def trained_experts(trainer: Trainer[Architecture]) -> tuple[Expert, ...]:
    """Return the experts that a trainer trains, the one for the highest noise levels first."""
    experts = trainer.model.experts
    if trainer.experts is None:
        levels = trainer.timesteps or trainer.model.timesteps
        return tuple(one for one in experts if _reached(levels, one)) or experts
    chosen = trainer.experts.train
    return tuple(expert for expert in experts if expert.name == chosen) or experts


def loaded_experts(trainer: Trainer[Architecture]) -> tuple[Expert, ...]:
    """Return the experts that a run loads: those that it trains, and for samples all."""
    return trainer.model.experts if trainer.samples else trained_experts(trainer)


def network_of(trainer: Trainer[Architecture], expert: Expert) -> Network:
    """Return what is trained on an expert."""
    return training_of(trainer).networks.get(expert.name, trainer.network)


def alone(trainer: Trainer[Architecture], expert: Expert) -> Trainer[Architecture]:
    """Return a trainer of one of the experts that a trainer trains, as its file describes itself."""
    if len(trainer.model.experts) == 1 or training_of(trainer).shared_adapter:
        return trainer
    one = attrs.evolve(training_of(trainer), train=expert.name, networks={}, rates={})
    inside = _inside(trainer.timesteps or trainer.model.timesteps, expert)
    return trainer.replace(
        name=file_names(trainer)[expert],
        experts=one,
        network=network_of(trainer, expert),
        timesteps=inside,
        samples=(),
        validation=None,
        sample_every=None,
        sample_every_epochs=None,
    )


def file_names(trainer: Trainer[Architecture]) -> Mapping[Expert, str]:
    """Return what the files of a run are called, by the expert whose adapter they hold.

    An expert's name is part of it where the model has several; a shared adapter is filed under the first.
    """
    trained = trained_experts(trainer)
    if len(trainer.model.experts) == 1 or training_of(trainer).shared_adapter:
        return {trained[0]: trainer.name}
    return {expert: f"{trainer.name}-{expert.name}" for expert in trained}


def levels_of(trainer: Trainer[Architecture]) -> TimestepSampler:
    """Return how noise levels are drawn: one expert alone has its own part of the distribution."""
    levels = trainer.timesteps or trainer.model.timesteps
    trained = trained_experts(trainer)
    return levels if len(trained) != 1 else _inside(levels, trained[0])


def _inside(levels: TimestepSampler, expert: Expert) -> TimestepSampler:
    """Return the part of a distribution that is an expert's, exactly as if all other draws were thrown away."""
    low, high = max(levels.low, expert.low), min(levels.high, expert.high)
    if (low, high) == (levels.low, levels.high) or low >= high:
        return levels
    return levels.replace(low=low, high=high, preserve_shape=True)


def expert_issues(trainer: Trainer[Architecture]) -> Iterable[Issue]:
    """Yield what does not fit between a trainer, its experts and the model's."""
    experts, training = trainer.model.experts, training_of(trainer)
    if len(experts) == 1:
        if trainer.experts is not None:
            yield Issue("experts", f"{trainer.model.title} has one model for all noise levels", "leave it out")
        return
    unknown = list(_name_issues(trainer))
    yield from unknown
    if not unknown:
        yield from _adapter_issues(trainer, training)
        yield from _level_issues(trainer)


def _name_issues(trainer: Trainer[Architecture]) -> Iterable[Issue]:
    training, names = training_of(trainer), [expert.name for expert in trainer.model.experts]
    hint = f"{BOTH}, {', '.join(names)}"
    if training.train not in (BOTH, *names):
        near = did_you_mean(training.train, [BOTH, *names])
        yield Issue("experts.train", f"there is no expert {training.train!r}{near}", hint)
        return
    trained = [expert.name for expert in trained_experts(trainer)]
    for path, given in (("networks", training.networks), ("rates", training.rates)):
        for name in given:
            if name not in trained:
                near = did_you_mean(name, trained)
                yield Issue(f"experts.{path}.{name}", f"no such expert is trained{near}", ", ".join(trained))


def _adapter_issues(trainer: Trainer[Architecture], training: ExpertTraining) -> Iterable[Issue]:
    several = len(trained_experts(trainer)) > 1
    if trainer.network.trains_base and several:
        hint = "with_experts('high'), then with_experts('low')"
        yield Issue("experts.train", "the models themselves are trained one at a time", hint)
    elif trainer.network.trains_base and trainer.samples:
        hint = "draw them with the file that the run saves"
        yield Issue("samples", "need all experts beside the one whose own weights are trained", hint)
    if trainer.initial is not None and several and not training.shared_adapter:
        hint = "train one expert, or resume a run"
        yield Issue("initial", "is one LoRA, but each expert has its own", hint)
    if training.shared_adapter and trainer.optimizer.fused_backward:
        hint = "leave it out: the gradients of both experts add up"
        yield Issue("optimizer.fused_backward", "does not work with a shared adapter", hint)


def _level_issues(trainer: Trainer[Architecture]) -> Iterable[Issue]:
    """Yield noise levels that a trained expert never sees."""
    levels = trainer.timesteps or trainer.model.timesteps
    for expert in trained_experts(trainer):
        span = f"{expert.low:g} to {expert.high:g}"
        if not _reached(levels, expert):
            message = f"none between {levels.low:g} and {levels.high:g} is one of the expert {expert.name!r} ({span})"
            yield Issue("timesteps", message, "widen the limits, or train the other expert alone")
        elif len(trained_experts(trainer)) == 1 and levels != levels_of(trainer) and _squeezed(levels):
            message = f"reach over the levels of the expert {expert.name!r} ({span})"
            yield Issue("timesteps", message, "set low and high inside them, or preserve_shape")
    low = min(expert.low for expert in trained_experts(trainer))
    high = max(expert.high for expert in trained_experts(trainer))
    for level in trainer.validation.sigmas if trainer.validation is not None else ():
        if not low <= level <= high:
            middle = f"Validation(sigmas=({low + (high - low) / 4:g}, {low + 3 * (high - low) / 4:g}))"
            message = f"{level:g} is no level of what is trained ({low:g} to {high:g})"
            yield Issue("validation.sigmas", message, middle)


def _reached(levels: TimestepSampler, expert: Expert) -> bool:
    return max(levels.low, expert.low) < min(levels.high, expert.high)


def _squeezed(levels: TimestepSampler) -> bool:
    return (levels.low, levels.high) != (0.0, 1.0) and not levels.preserve_shape
