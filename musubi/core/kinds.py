"""The one registry: which class a ``kind`` in a file means. Static, so a file can never choose code to import."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import did_you_mean

KINDS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "architecture": MappingProxyType(
            {
                "wan": "musubi.architectures.wan.spec:Wan",
                "qwen_image": "musubi.architectures.qwen_image.spec:QwenImage",
            }
        ),
        "source": MappingProxyType(
            {
                "folder": "musubi.data.sources.folder:Folder",
                "jsonl": "musubi.data.sources.rows:Jsonl",
                "metadata": "musubi.data.sources.metadata:MetadataFolder",
            }
        ),
        "windows": MappingProxyType(
            {
                "head": "musubi.data.windows:Head",
                "chunk": "musubi.data.windows:Chunk",
                "slide": "musubi.data.windows:Slide",
                "uniform": "musubi.data.windows:Spread",
                "full": "musubi.data.windows:Full",
            }
        ),
        "rate": MappingProxyType(
            {
                "resample": "musubi.data.rates:Resample",
                "every_frame": "musubi.data.rates:EveryFrame",
                "stated": "musubi.data.rates:StatedRate",
            }
        ),
        "control_size": MappingProxyType(
            {
                "target": "musubi.data.control_size:LikeTarget",
                "native": "musubi.data.control_size:OwnSize",
                "area": "musubi.data.control_size:NearArea",
            }
        ),
        "timesteps": MappingProxyType(
            {
                "uniform": "musubi.noise.timesteps:Uniform",
                "sigmoid": "musubi.noise.timesteps:Sigmoid",
                "shift": "musubi.noise.timesteps:Shift",
                "logit_normal": "musubi.noise.timesteps:LogitNormal",
            }
        ),
        "weighting": MappingProxyType(
            {
                "none": "musubi.noise.weighting:NoWeighting",
                "sigma_sqrt": "musubi.noise.weighting:SigmaSqrt",
                "cosmap": "musubi.noise.weighting:CosMap",
            }
        ),
        "sampler": MappingProxyType(
            {
                "euler": "musubi.noise.samplers:Euler",
                "unipc": "musubi.noise.samplers:UniPC",
            }
        ),
        "guidance": MappingProxyType({"classifier_free": "musubi.noise.guidance:ClassifierFree"}),
        "network": MappingProxyType({"lora": "musubi.networks.lora:LoRA"}),
        "memory": MappingProxyType(
            {
                "block_swap": "musubi.memory.block_swap:BlockSwap",
                "fp8_scaled": "musubi.memory.quantise:FP8Scaled",
                "gradient_checkpointing": "musubi.memory.checkpointing:GradientCheckpointing",
            }
        ),
        "optimizer": MappingProxyType({"adamw": "musubi.optim.optimizers:AdamW"}),
        "schedule": MappingProxyType(
            {
                "constant": "musubi.optim.schedules:Constant",
                "cosine": "musubi.optim.schedules:Cosine",
                "linear": "musubi.optim.schedules:Linear",
            }
        ),
    }
)


def find(family: str, kind: str, plugins: Iterable[type] = ()) -> type:
    """Return the class of ``kind`` in ``family``: a plugin's if one claims it, else the table's.

    Raises:
        ConfigError: Nobody knows the kind; the nearest known one is named.
    """
    offered = {str(getattr(p, "kind", "")): p for p in plugins if getattr(p, "family", None) == family}
    if kind in offered:
        return offered[kind]
    table = KINDS.get(family, {})
    if kind not in table:
        near = did_you_mean(kind, [*offered, *table])
        hint = f"known: {', '.join([*offered, *table])}; third-party kinds are passed as plugins=[...]"
        raise ConfigError("unknown kind", [Issue("kind", f"no {family} is called {kind!r}{near}", hint)])
    module, _, name = table[kind].partition(":")
    found: type = getattr(importlib.import_module(module), name)
    return found
