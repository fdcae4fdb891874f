"""What a training run will need, from the checkpoint's header, the cache's buckets and the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from musubi.memory import plan as memory_plan
from musubi.memory.device import pick_device, pick_dtype

if TYPE_CHECKING:
    from musubi.architecture import Architecture
    from musubi.training.trainer import Trainer

_ADAPTER = _AVERAGE = 4
"""Bytes of a number of an adapter, and of an average."""


def plan(trainer: Trainer[Architecture]) -> memory_plan.Plan:
    """Return the need of every bucket in the cache."""
    model, manifest = trainer.model, trainer.cache.manifest()
    empty = model.denoiser().empty(model.experts[0])
    items = {cached.item.bucket_label: cached.item for cached in manifest.items}
    return memory_plan.plan(
        empty,
        layout=model.layout,
        keys=model.keys,
        geometry=model.geometry,
        buckets={
            label: model.geometry.latent_shape(item.bucket, item.window.count) for label, item in sorted(items.items())
        },
        batch_size=max(item.batch_size for item in items.values()),
        trainable=trainer.network.trainable(empty, keys=model.keys, layout=model.layout),
        policies=trainer.memory,
        training=True,
        dtype=pick_dtype(trainer.precision, pick_device(trainer.device)),
        title=f"{model.title}, {trainer.network.title}",
        cost=cost(trainer),
    )


def cost(trainer: Trainer[Architecture]) -> memory_plan.Cost:
    """Return what each trained parameter takes: of the model itself, what it takes beyond the frozen model's."""
    network, optimizer, ema = trainer.network, trainer.optimizer, trainer.ema
    computed = pick_dtype(trainer.precision, pick_device(trainer.device))
    kept = network.weights_dtype(computed).itemsize if network.trains_base else _ADAPTER
    weight = kept - computed.itemsize if network.trains_base else kept
    gradient = 0 if optimizer.fused_backward else kept
    average = _AVERAGE if ema is not None and not ema.on_host else 0
    saved = _AVERAGE if ema is not None else 0
    what = "weights, gradients and moments" if network.trains_base else "adapters in float32"
    return memory_plan.Cost(
        device=weight + gradient + optimizer.state_bytes + average,
        disk=2 * kept + optimizer.state_bytes + saved,
        what=f"{what} with {type(optimizer).__name__}",
    )
