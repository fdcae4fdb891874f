"""What a LoRA file tells about itself, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from musubi.networks.fingerprint import KEY
from musubi.networks.weights import AdapterWeights

_TRAINING = (
    ("title", "modelspec.title"),
    ("base model", "ss_base_model_version"),
    ("base file", "ss_sd_model_name"),
    ("architecture", "modelspec.architecture"),
    ("steps", "ss_steps"),
    ("epoch", "ss_epoch"),
    ("items", "ss_num_train_items"),
    ("learning rate", "ss_learning_rate"),
    ("optimiser", "ss_optimizer"),
    ("seed", "ss_seed"),
    ("date", "modelspec.date"),
    ("licence", "modelspec.license"),
    ("fingerprint", KEY),
)
_LONGEST = 80


def of(modules: Mapping[str, AdapterWeights], metadata: Mapping[str, str], layout: str | None) -> list[tuple[str, str]]:
    """Return (name, value) pairs: the adapters' first, then what the metadata know of the training."""
    weights = list(modules.values())
    facts = [
        ("kind", ", ".join(sorted({one.kind for one in weights}))),
        ("modules", str(len(modules))),
        ("ranks", _counted(one.rank for one in weights)),
        ("alpha / rank", _counted(round(one.strength, 6) for one in weights)),
        ("parameters", f"{sum(one.numel for one in weights):,}"),
        ("precision", _counted(str(_first(one)).removeprefix("torch.") for one in weights)),
        ("layout", layout or "none yet"),
    ]
    told = [(label, metadata[key]) for label, key in _TRAINING if metadata.get(key)]
    return [*facts, *((label, _short(value)) for label, value in told)]


def resized(metadata: Mapping[str, str], modules: Mapping[str, AdapterWeights]) -> dict[str, str]:
    """Return metadata whose rank and alpha are those of the modules, ``Dynamic`` where they differ among them."""
    ranks = {str(weights.rank) for weights in modules.values()}
    alphas = {f"{float(weights.alpha)}" for weights in modules.values()}
    found = {"ss_network_dim": ranks, "ss_network_alpha": alphas}
    return {**metadata, **{key: values.pop() if len(values) == 1 else "Dynamic" for key, values in found.items()}}


def _counted(values: Iterable[object]) -> str:
    """Return the values with how often each occurs, or the only one alone."""
    counts = Counter(values)
    if len(counts) == 1:
        return str(next(iter(counts)))
    return ", ".join(f"{value} ({count}x)" for value, count in counts.most_common(6))


def _first(weights: AdapterWeights) -> object:
    return next(tensor.dtype for role, tensor in weights.tensors().items() if role != "alpha")


def _short(value: str) -> str:
    return value if len(value) <= _LONGEST else value[: _LONGEST - 3] + "..."
