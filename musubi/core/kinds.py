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
                "flux_kontext": "musubi.architectures.flux_kontext.spec:FluxKontext",
                "hunyuan_video": "musubi.architectures.hunyuan_video.spec:HunyuanVideo",
                "framepack": "musubi.architectures.framepack.spec:FramePack",
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
                "fixed": "musubi.data.control_size:FixedSize",
            }
        ),
        "timesteps": MappingProxyType(
            {
                "uniform": "musubi.noise.timesteps:Uniform",
                "sigmoid": "musubi.noise.timesteps:Sigmoid",
                "shift": "musubi.noise.timesteps:Shift",
                "logit_normal": "musubi.noise.timesteps:LogitNormal",
                "resolution_shift": "musubi.noise.timesteps:ResolutionShift",
                "mode": "musubi.noise.timesteps:Mode",
                "mixture": "musubi.noise.mixture:Mixture",
            }
        ),
        "weighting": MappingProxyType(
            {
                "none": "musubi.noise.weighting:NoWeighting",
                "sigma_sqrt": "musubi.noise.weighting:SigmaSqrt",
                "cosmap": "musubi.noise.weighting:CosMap",
            }
        ),
        "loss": MappingProxyType(
            {
                "mse": "musubi.noise.loss:MSE",
                "huber": "musubi.noise.loss:Huber",
                "smooth_l1": "musubi.noise.loss:SmoothL1",
            }
        ),
        "sampler": MappingProxyType(
            {
                "euler": "musubi.noise.samplers:Euler",
                "unipc": "musubi.noise.samplers:UniPC",
                "dpm++": "musubi.noise.dpm:DPMPlusPlus",
            }
        ),
        "guidance": MappingProxyType(
            {
                "classifier_free": "musubi.noise.guidance:ClassifierFree",
                "skip_layer": "musubi.noise.skip_layer:SkipLayer",
                "per_expert": "musubi.noise.per_expert:PerExpert",
                "embedded": "musubi.noise.embedded:Embedded",
                "norm_preserving": "musubi.noise.norm_preserving:NormPreserving",
            }
        ),
        "network": MappingProxyType(
            {
                "lora": "musubi.networks.lora:LoRA",
                "dora": "musubi.networks.lora:DoRA",
                "loha": "musubi.networks.loha:LoHa",
                "lokr": "musubi.networks.lokr:LoKr",
                "full": "musubi.networks.full:FullFineTune",
            }
        ),
        "memory": MappingProxyType(
            {
                "activation_offload": "musubi.memory.activation_offload:ActivationOffload",
                "attention": "musubi.memory.attention:Attention",
                "block_swap": "musubi.memory.block_swap:BlockSwap",
                "compile": "musubi.memory.compiling:Compile",
                "fp8_cast": "musubi.memory.quantise:FP8Cast",
                "fp8_scaled": "musubi.memory.quantise:FP8Scaled",
                "gradient_checkpointing": "musubi.memory.checkpointing:GradientCheckpointing",
                "int8_scaled": "musubi.memory.quantise:Int8Scaled",
                "memory": "musubi.memory.fit:Memory",
                "nf4": "musubi.memory.quantise:NF4",
                "text_encoder": "musubi.memory.encoders:TextEncoderMemory",
                "vae_tiling": "musubi.memory.vae:VAETiling",
            }
        ),
        "optimizer": MappingProxyType(
            {
                "adamw": "musubi.optim.optimizers:AdamW",
                "adamw_8bit": "musubi.optim.external:AdamW8bit",
                "adafactor": "musubi.optim.adafactor:Adafactor",
                "lion": "musubi.optim.external:Lion",
                "prodigy": "musubi.optim.external:Prodigy",
                "prodigy_plus_schedule_free": "musubi.optim.external:ProdigyPlusScheduleFree",
                "schedule_free_adamw": "musubi.optim.external:ScheduleFreeAdamW",
            }
        ),
        "schedule": MappingProxyType(
            {
                "constant": "musubi.optim.schedules:Constant",
                "cosine": "musubi.optim.schedules:Cosine",
                "cosine_restarts": "musubi.optim.decays:CosineRestarts",
                "inverse_sqrt": "musubi.optim.decays:InverseSqrt",
                "linear": "musubi.optim.schedules:Linear",
                "piecewise_constant": "musubi.optim.stages:PiecewiseConstant",
                "polynomial": "musubi.optim.decays:Polynomial",
                "rex": "musubi.optim.decays:Rex",
                "warmup_stable_decay": "musubi.optim.stages:WarmupStableDecay",
            }
        ),
    }
)


_NAMING: Mapping[tuple[str, str], str] = MappingProxyType(
    {("optimizer", "custom"): "CustomOptimizer", ("schedule", "torch"): "TorchSchedule"}
)
"""Kinds that import a class by its name, and so are not in the table: the class that a program may let a file use."""


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
        if (family, kind) in _NAMING:
            near, hint = "", f"it names code to import; to let this file do so, pass plugins=[{_NAMING[family, kind]}]"
        raise ConfigError("unknown kind", [Issue("kind", f"no {family} is called {kind!r}{near}", hint)])
    module, _, name = table[kind].partition(":")
    found: type = getattr(importlib.import_module(module), name)
    return found
