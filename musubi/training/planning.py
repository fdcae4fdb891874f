"""What a training run will need, from the checkpoint's header, the cache's buckets and the settings."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs

from musubi.cache.format import content_name
from musubi.cache.units import Unit, units_of
from musubi.inference.components import decoder_bytes, encoding
from musubi.inference.fitting import opened
from musubi.inference.foreseen import Shape, prediction
from musubi.inference.planning import PROGRAM, drawing, planned_dtype, waiting
from musubi.memory.block_swap import BlockSwap
from musubi.memory.budget import size
from musubi.memory.device import pick_device
from musubi.memory.forecast import Bucket, Forecast, Subject
from musubi.memory.hardware import Hardware, as_hardware
from musubi.memory.plan import Cost, Other, Plan, plan_of, told_cost
from musubi.memory.policy import FitContext, MemoryPolicy, Phase
from musubi.training.experts import loaded_experts, network_of, trained_experts, training_of
from musubi.training.fitting import fit_context
from musubi.training.stored_files import places

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import nn

    from musubi.architecture import Architecture
    from musubi.cache.cache import Cache
    from musubi.cache.manifest import Manifest
    from musubi.inference.request import Job
    from musubi.networks.network import Network
    from musubi.training.trainer import Trainer

logger = logging.getLogger(__name__)

_ADAPTER = _AVERAGE = 4
"""Bytes of a number of an adapter, and of an average."""


def plan(trainer: Trainer[Architecture], *, hardware: Hardware | str | None = None) -> Plan:
    """Return the need of every bucket in the cache.

    Raises:
        ConfigError: There is no such hardware, the policies do not fit, or nothing fits a budget.
        CacheError: The cache is not built.
        WeightsError: The checkpoint cannot be read or does not fit the model.
    """
    device = pick_device(trainer.device)
    card = as_hardware(hardware, device)
    subject = subject_of(trainer, device, accelerated=card is not None or device.type != "cpu")
    numbers = _numbers(trainer, subject.model)
    costs = cost(trainer, _computed(trainer, device, accelerated=subject.accelerated))
    prior = ("every step sees a batch of the cache and one of the prior's",) if trainer.prior is not None else ()
    name = str(subject.dtype).removeprefix("torch.")
    return plan_of(
        subject,
        trainer.memory,
        title=f"{trainer.model.title}, {_titles(trainer)}, training, {name}",
        hardware=card,
        places=places(trainer, file=numbers * costs.file, state=numbers * costs.state),
        others=others(trainer, subject),
        told=(told_cost(costs, numbers), *prior),
        base=PROGRAM + waiting(subject, len(loaded_experts(trainer)), trainer.memory),
    )


def cost(trainer: Trainer[Architecture], computed: torch.dtype) -> Cost:
    """Return what each trained parameter takes; of the model itself, what it takes beyond its weights."""
    network, optimizer, ema = trainer.network, trainer.optimizer, trainer.ema
    kept = network.weights_dtype(computed).itemsize if network.trains_base else _ADAPTER
    average = _AVERAGE if ema is not None and not ema.on_host else 0
    saved = _AVERAGE if ema is not None else 0
    what = "weights, gradients and moments" if network.trains_base else "adapters in float32"
    return Cost(
        device=(0 if network.trains_base else kept) + optimizer.state_bytes + average,
        gradient=0 if optimizer.fused_backward else kept,
        file=kept,
        state=kept + optimizer.state_bytes + saved,
        what=f"{what} with {type(optimizer).__name__}",
    )


def subject_of(trainer: Trainer[Architecture], device: torch.device, *, accelerated: bool) -> Subject:
    """Return a trainer's model and buckets as something to plan for."""
    model = trainer.model
    denoiser, expert = model.denoiser(), trained_experts(trainer)[0]
    empty, stored = denoiser.empty(expert), denoiser.stored(expert)
    computed = _computed(trainer, device, accelerated=accelerated)
    numbers = _numbers(trainer, empty)
    costs = cost(trainer, computed)
    return Subject(
        model=empty,
        keys=model.keys,
        context=opened(fit_context(trainer), empty, stored),
        dtype=trainer.network.weights_dtype(computed),
        buckets=tuple(_buckets(trainer, computed)),
        float32=denoiser.float32,
        stored=stored,
        attach=_attach(trainer),
        trained=numbers * costs.device,
        gradients=numbers * costs.gradient,
        passes=trainer.accumulate,
        adds_up=trainer.accumulate > 1 or trainer.prior is not None,
        accelerated=accelerated,
    )


def _networks(trainer: Trainer[Architecture]) -> list[Network]:
    """Return what is trained: for each expert that has its own, the one on it."""
    experts = trained_experts(trainer)
    shared = training_of(trainer).shared_adapter
    return [network_of(trainer, expert) for expert in (experts[:1] if shared else experts)]


def _numbers(trainer: Trainer[Architecture], empty: nn.Module) -> int:
    """Return how many numbers are trained, on all experts together."""
    keys, layout = trainer.model.keys, trainer.model.layout
    return sum(network.trainable(empty, keys=keys, layout=layout) for network in _networks(trainer))


def _titles(trainer: Trainer[Architecture]) -> str:
    return " and ".join(network.title for network in _networks(trainer))


def _computed(trainer: Trainer[Architecture], device: torch.device, *, accelerated: bool) -> torch.dtype:
    return planned_dtype(trainer.precision, device, accelerated=accelerated)


def _attach(trainer: Trainer[Architecture]) -> Callable[[nn.Module], Any]:
    """Return what puts the trainer's network on a model."""
    import torch

    @contextmanager
    def freed(model: nn.Module) -> Generator[Iterable[nn.Parameter]]:
        from musubi.networks.full_weights import targeted_parameters

        keys, layout = trainer.model.keys, trainer.model.layout
        parameters = targeted_parameters(model, trainer.network.targets, keys=keys, layout=layout).values()
        for parameter in parameters:
            parameter.requires_grad = True
        yield parameters
        for parameter in parameters:
            parameter.requires_grad = False

    @contextmanager
    def attached(model: nn.Module) -> Generator[Iterable[nn.Parameter]]:
        generator = torch.Generator().manual_seed(trainer.seed)
        keys, layout = trainer.model.keys, trainer.model.layout
        network = network_of(trainer, trained_experts(trainer)[0])
        trained = network.prepare(model, keys=keys, layout=layout, generator=generator)
        with trained.train().attached(model):
            yield [parameter for group in trained.groups() for parameter in group.parameters]

    return freed if trainer.network.trains_base else attached


def _buckets(trainer: Trainer[Architecture], dtype: torch.dtype) -> Iterable[Bucket]:
    """Yield every bucket at its largest batch, of the item whose entry is the largest; then those of the prior."""
    yield from _buckets_of(trainer.cache, trainer.model, dtype)
    if trainer.prior is not None:
        for bucket in _buckets_of(trainer.prior.cache, trainer.model, dtype):
            yield attrs.evolve(bucket, name=f"prior {bucket.name}")


def _buckets_of(cache: Cache[Architecture], model: Architecture, dtype: torch.dtype) -> Iterable[Bucket]:
    geometry = model.geometry
    for label, (unit, items) in sorted(_largest(cache.manifest()).items()):
        item = unit.item
        latent = geometry.latent_shape(item.bucket, item.window.count)
        entry = _shapes(cache.path, unit)
        predict = prediction(model.denoiser(), entry, items=items, dtype=dtype) if entry else None
        yield Bucket(name=label, tokens=geometry.tokens(latent) * items, predict=predict)


def _largest(manifest: Manifest) -> dict[str, tuple[Unit, int]]:
    """Return, by bucket, the unit with most bytes and the items of the largest batch."""
    found: dict[str, tuple[int, Unit]] = {}
    sizes: Counter[str] = Counter()
    for cached in manifest.items:
        label = cached.item.bucket_label
        sizes[label] = max(sizes[label], cached.item.batch_size)
        for unit in units_of(attrs.evolve(cached, item=attrs.evolve(cached.item, repeats=1)), manifest):
            count = sum(file.bytes for file in unit.fixed) + max(
                (sum(file.bytes for file in files) for files in unit.captions), default=0
            )
            if label not in found or count > found[label][0]:
                found[label] = (count, unit)
    return {label: (unit, sizes[label]) for label, (_, unit) in found.items()}


def _shapes(folder: Path, unit: Unit) -> dict[str, Shape]:
    """Return the shapes of a unit's tensors, with its longest caption; nothing where a file cannot be read."""
    from safetensors import SafetensorError, safe_open

    longest = max(unit.captions, key=lambda files: sum(file.bytes for file in files))
    found: dict[str, Shape] = {}
    try:
        for file in (*unit.fixed, *longest):
            with safe_open(folder / file.name, framework="pt") as opened_file:
                for key in opened_file.keys():  # noqa: SIM118  # it is no mapping
                    tensor = opened_file.get_slice(key)
                    found[content_name(key)] = Shape(sizes=tuple(tensor.get_shape()), dtype=_dtype(tensor.get_dtype()))
    except (OSError, SafetensorError) as error:
        logger.warning("no shapes of %s: %s", unit.item.name, error)
        return {}
    return found


def _dtype(name: str) -> torch.dtype:
    """Return the type that safetensors calls by a name; float32 where it does not matter which."""
    import torch

    known = {"F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32, "BOOL": torch.bool}
    return known.get(name, torch.float32)


def others(trainer: Trainer[Architecture], subject: Subject) -> Callable[[Sequence[MemoryPolicy]], tuple[Other, ...]]:
    """Return what tells of the encoding that came before the run, and of its samples, with any policies."""
    samples = _sampling(trainer, subject)

    def told(policies: Sequence[MemoryPolicy]) -> tuple[Other, ...]:
        return *encoding(trainer.model, policies), *(samples(policies) for _ in trainer.samples[:1])

    return told


def _sampling(trainer: Trainer[Architecture], subject: Subject) -> Callable[[Sequence[MemoryPolicy]], Other]:
    """Return what tells the need of the largest sample: the model with what is trained, then beside the decoder."""

    @functools.cache
    def forecast() -> Forecast:
        context = FitContext.of(trainer.model, training=False)
        job = max(_jobs(trainer), key=lambda asked: asked.size[0] * asked.size[1] * asked.frames)
        drawn = drawing(trainer.model, job, context=context, dtype=subject.dtype, accelerated=subject.accelerated)
        return Forecast(drawn)

    def told(policies: Sequence[MemoryPolicy]) -> Other:
        used = [policy for policy in policies if policy.phase not in {Phase.CHECKPOINT, Phase.ACTIVATIONS}]
        row = forecast().rows([_frozen(policy) for policy in used])[0]
        decoder = decoder_bytes(trainer.model, policies)
        resident = row.weights + row.slack + subject.trained
        return Other(
            name="sampling",
            device=resident + max(row.activations, decoder or 0),
            what=f"the model and {size(row.activations)} for {row.bucket}, then beside it the decoder, "
            + ("whose file is not here" if decoder is None else f"{size(decoder)} and what it works on"),
            way_out="ask for smaller or shorter samples, or draw them later with a pipeline",
            chosen=True,
        )

    return told


def _frozen(policy: MemoryPolicy) -> MemoryPolicy:
    """Return a policy as it is while nothing is trained: a swap writes nothing back."""
    if isinstance(policy, BlockSwap) and policy.write_back:
        return BlockSwap(blocks=policy.blocks, budget=policy.budget)
    return policy


def _jobs(trainer: Trainer[Architecture]) -> list[Job]:
    kinds = Counter((cached.item.bucket, cached.item.window.count) for cached in trainer.cache.items())
    (usual, frames), _ = kinds.most_common(1)[0]
    return [
        request.replace(size=request.size or usual, frames=request.frames or frames).job(trainer.model)
        for request in trainer.samples
    ]
