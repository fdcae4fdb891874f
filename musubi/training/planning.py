"""What a training run will need, from the checkpoint's header, the cache's buckets and the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from musubi.memory import plan as memory_plan
from musubi.memory.device import pick_device, pick_dtype
from musubi.networks.groups import targeted

if TYPE_CHECKING:
    from musubi.architecture import Architecture
    from musubi.training.trainer import Trainer


def plan(trainer: Trainer[Architecture]) -> memory_plan.Plan:
    """Return the need of every bucket in the cache."""
    model, manifest = trainer.model, trainer.cache.manifest()
    empty = model.denoiser().empty(model.experts[0])
    groups = targeted(empty, trainer.network.targets, keys=model.keys, layout=model.layout)
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
        trainable=sum(group.parameters(trainer.network.rank) for group in groups),
        policies=trainer.memory,
        training=True,
        dtype=pick_dtype(trainer.precision, pick_device(trainer.device)),
        title=f"{model.title}, {trainer.network.kind} of rank {trainer.network.rank}",
    )
