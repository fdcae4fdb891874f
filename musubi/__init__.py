"""Train and run LoRAs of large video and image diffusion models. Names load lazily; importing this loads no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from musubi import compat as compat
    from musubi import hub as hub
    from musubi.architecture import Architecture as Architecture
    from musubi.architecture import Geometry as Geometry
    from musubi.architectures.qwen_image.api import QwenImageCache as QwenImageCache
    from musubi.architectures.qwen_image.api import QwenImageDataset as QwenImageDataset
    from musubi.architectures.qwen_image.api import QwenImagePipeline as QwenImagePipeline
    from musubi.architectures.qwen_image.api import QwenImageTrainer as QwenImageTrainer
    from musubi.architectures.qwen_image.spec import QwenImage as QwenImage
    from musubi.architectures.wan.api import WanCache as WanCache
    from musubi.architectures.wan.api import WanDataset as WanDataset
    from musubi.architectures.wan.api import WanPipeline as WanPipeline
    from musubi.architectures.wan.api import WanTrainer as WanTrainer
    from musubi.architectures.wan.spec import Wan as Wan
    from musubi.cache.cache import Cache as Cache
    from musubi.cache.diff import Diff as Diff
    from musubi.core.control import CancelToken as CancelToken
    from musubi.core.errors import CacheError as CacheError
    from musubi.core.errors import ConfigError as ConfigError
    from musubi.core.errors import DataError as DataError
    from musubi.core.errors import Issue as Issue
    from musubi.core.errors import MusubiError as MusubiError
    from musubi.core.errors import RunError as RunError
    from musubi.core.errors import WeightsError as WeightsError
    from musubi.core.events import Event as Event
    from musubi.core.events import Finished as Finished
    from musubi.core.events import Progress as Progress
    from musubi.core.events import Sampled as Sampled
    from musubi.core.events import Saved as Saved
    from musubi.core.events import Started as Started
    from musubi.core.events import StepEnded as StepEnded
    from musubi.core.events import Warned as Warned
    from musubi.core.refs import WeightsRef as WeightsRef
    from musubi.data.captions import Captions as Captions
    from musubi.data.control_size import ControlSize as ControlSize
    from musubi.data.control_size import LikeTarget as LikeTarget
    from musubi.data.control_size import NearArea as NearArea
    from musubi.data.control_size import OwnSize as OwnSize
    from musubi.data.dataset import Dataset as Dataset
    from musubi.data.holdout import HoldOut as HoldOut
    from musubi.data.rates import EveryFrame as EveryFrame
    from musubi.data.rates import FrameRate as FrameRate
    from musubi.data.rates import Resample as Resample
    from musubi.data.rates import StatedRate as StatedRate
    from musubi.data.report.report import Report as Report
    from musubi.data.scan import Scan as Scan
    from musubi.data.sources.folder import Folder as Folder
    from musubi.data.sources.metadata import MetadataFolder as MetadataFolder
    from musubi.data.sources.rows import Jsonl as Jsonl
    from musubi.data.sources.source import Source as Source
    from musubi.data.windows import Chunk as Chunk
    from musubi.data.windows import Full as Full
    from musubi.data.windows import Head as Head
    from musubi.data.windows import Slide as Slide
    from musubi.data.windows import Spread as Spread
    from musubi.data.windows import Windows as Windows
    from musubi.inference.engine import SamplingCancelledError as SamplingCancelledError
    from musubi.inference.loras import LoRAUse as LoRAUse
    from musubi.inference.media import Image as Image
    from musubi.inference.media import Video as Video
    from musubi.inference.pipeline import Pipeline as Pipeline
    from musubi.inference.request import Request as Request
    from musubi.inference.session import Session as Session
    from musubi.memory.block_swap import BlockSwap as BlockSwap
    from musubi.memory.checkpointing import GradientCheckpointing as GradientCheckpointing
    from musubi.memory.plan import Plan as Plan
    from musubi.memory.policy import MemoryPolicy as MemoryPolicy
    from musubi.memory.quantise import FP8Scaled as FP8Scaled
    from musubi.networks.file import LoRAFile as LoRAFile
    from musubi.networks.lora import LoRA as LoRA
    from musubi.networks.network import Network as Network
    from musubi.networks.network import Targets as Targets
    from musubi.noise.guidance import ClassifierFree as ClassifierFree
    from musubi.noise.guidance import Guidance as Guidance
    from musubi.noise.samplers import Euler as Euler
    from musubi.noise.samplers import Sampler as Sampler
    from musubi.noise.samplers import UniPC as UniPC
    from musubi.noise.timesteps import LogitNormal as LogitNormal
    from musubi.noise.timesteps import Shift as Shift
    from musubi.noise.timesteps import Sigmoid as Sigmoid
    from musubi.noise.timesteps import TimestepSampler as TimestepSampler
    from musubi.noise.timesteps import Uniform as Uniform
    from musubi.noise.weighting import CosMap as CosMap
    from musubi.noise.weighting import NoWeighting as NoWeighting
    from musubi.noise.weighting import SigmaSqrt as SigmaSqrt
    from musubi.noise.weighting import Weighting as Weighting
    from musubi.optim.optimizers import AdamW as AdamW
    from musubi.optim.optimizers import Optimizer as Optimizer
    from musubi.optim.schedules import Constant as Constant
    from musubi.optim.schedules import Cosine as Cosine
    from musubi.optim.schedules import Linear as Linear
    from musubi.optim.schedules import Schedule as Schedule
    from musubi.training.callbacks import ProgressBar as ProgressBar
    from musubi.training.callbacks import TrackerCallback as TrackerCallback
    from musubi.training.result import TrainResult as TrainResult
    from musubi.training.run import Run as Run
    from musubi.training.trainer import Trainer as Trainer

__version__ = "0.1.0"

_HOME = {
    "architecture": ("Architecture", "Geometry"),
    "architectures.qwen_image.api": ("QwenImageCache", "QwenImageDataset", "QwenImagePipeline", "QwenImageTrainer"),
    "architectures.qwen_image.spec": ("QwenImage",),
    "architectures.wan.api": ("WanCache", "WanDataset", "WanPipeline", "WanTrainer"),
    "architectures.wan.spec": ("Wan",),
    "cache.cache": ("Cache",),
    "cache.diff": ("Diff",),
    "core.control": ("CancelToken",),
    "core.errors": ("CacheError", "ConfigError", "DataError", "Issue", "MusubiError", "RunError", "WeightsError"),
    "core.events": ("Event", "Finished", "Progress", "Sampled", "Saved", "Started", "StepEnded", "Warned"),
    "core.refs": ("WeightsRef",),
    "data.captions": ("Captions",),
    "data.control_size": ("ControlSize", "LikeTarget", "NearArea", "OwnSize"),
    "data.dataset": ("Dataset",),
    "data.sources.folder": ("Folder",),
    "data.holdout": ("HoldOut",),
    "data.sources.metadata": ("MetadataFolder",),
    "data.rates": ("EveryFrame", "FrameRate", "Resample", "StatedRate"),
    "data.report.report": ("Report",),
    "data.sources.rows": ("Jsonl",),
    "data.scan": ("Scan",),
    "data.sources.source": ("Source",),
    "data.windows": ("Chunk", "Full", "Head", "Slide", "Spread", "Windows"),
    "inference.engine": ("SamplingCancelledError",),
    "inference.loras": ("LoRAUse",),
    "inference.media": ("Image", "Video"),
    "inference.pipeline": ("Pipeline",),
    "inference.request": ("Request",),
    "inference.session": ("Session",),
    "memory.block_swap": ("BlockSwap",),
    "memory.checkpointing": ("GradientCheckpointing",),
    "memory.plan": ("Plan",),
    "memory.policy": ("MemoryPolicy",),
    "memory.quantise": ("FP8Scaled",),
    "networks.file": ("LoRAFile",),
    "networks.lora": ("LoRA",),
    "networks.network": ("Network", "Targets"),
    "noise.guidance": ("ClassifierFree", "Guidance"),
    "noise.samplers": ("Euler", "Sampler", "UniPC"),
    "noise.timesteps": ("LogitNormal", "Shift", "Sigmoid", "TimestepSampler", "Uniform"),
    "noise.weighting": ("CosMap", "NoWeighting", "SigmaSqrt", "Weighting"),
    "optim.optimizers": ("AdamW", "Optimizer"),
    "optim.schedules": ("Constant", "Cosine", "Linear", "Schedule"),
    "training.callbacks": ("ProgressBar", "TrackerCallback"),
    "training.result": ("TrainResult",),
    "training.run": ("Run",),
    "training.trainer": ("Trainer",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

_PACKAGES = ("compat", "hub")

__all__ = sorted([*_MODULE_OF, *_PACKAGES])  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"musubi.{name}")
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'musubi' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"musubi.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
