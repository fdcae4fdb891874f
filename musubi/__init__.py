"""Train and run LoRAs of large video and image diffusion models. Names load lazily; importing this loads no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from musubi import compat as compat
    from musubi import hub as hub
    from musubi.architecture import Architecture as Architecture
    from musubi.architecture import Geometry as Geometry
    from musubi.architectures.flux_kontext.api import FluxKontextCache as FluxKontextCache
    from musubi.architectures.flux_kontext.api import FluxKontextDataset as FluxKontextDataset
    from musubi.architectures.flux_kontext.api import FluxKontextPipeline as FluxKontextPipeline
    from musubi.architectures.flux_kontext.api import FluxKontextTrainer as FluxKontextTrainer
    from musubi.architectures.flux_kontext.spec import FluxKontext as FluxKontext
    from musubi.architectures.framepack.api import FramePackCache as FramePackCache
    from musubi.architectures.framepack.api import FramePackDataset as FramePackDataset
    from musubi.architectures.framepack.api import FramePackPipeline as FramePackPipeline
    from musubi.architectures.framepack.api import FramePackTrainer as FramePackTrainer
    from musubi.architectures.framepack.spec import FramePack as FramePack
    from musubi.architectures.hunyuan_video.api import HunyuanVideoCache as HunyuanVideoCache
    from musubi.architectures.hunyuan_video.api import HunyuanVideoDataset as HunyuanVideoDataset
    from musubi.architectures.hunyuan_video.api import HunyuanVideoPipeline as HunyuanVideoPipeline
    from musubi.architectures.hunyuan_video.api import HunyuanVideoTrainer as HunyuanVideoTrainer
    from musubi.architectures.hunyuan_video.spec import HunyuanVideo as HunyuanVideo
    from musubi.architectures.qwen_image.api import QwenImageCache as QwenImageCache
    from musubi.architectures.qwen_image.api import QwenImageDataset as QwenImageDataset
    from musubi.architectures.qwen_image.api import QwenImagePipeline as QwenImagePipeline
    from musubi.architectures.qwen_image.api import QwenImageTrainer as QwenImageTrainer
    from musubi.architectures.qwen_image.spec import QwenImage as QwenImage
    from musubi.architectures.wan.api import WanCache as WanCache
    from musubi.architectures.wan.api import WanDataset as WanDataset
    from musubi.architectures.wan.api import WanPipeline as WanPipeline
    from musubi.architectures.wan.api import WanTrainer as WanTrainer
    from musubi.architectures.wan.one_frame import OneFrame as OneFrame
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
    from musubi.core.events import Band as Band
    from musubi.core.events import Event as Event
    from musubi.core.events import Finished as Finished
    from musubi.core.events import Progress as Progress
    from musubi.core.events import Removed as Removed
    from musubi.core.events import RolledBack as RolledBack
    from musubi.core.events import Sampled as Sampled
    from musubi.core.events import Saved as Saved
    from musubi.core.events import Started as Started
    from musubi.core.events import StepEnded as StepEnded
    from musubi.core.events import Validated as Validated
    from musubi.core.events import Warned as Warned
    from musubi.core.events import WeightNorms as WeightNorms
    from musubi.core.refs import WeightsRef as WeightsRef
    from musubi.data.captions import Captions as Captions
    from musubi.data.control_size import ControlSize as ControlSize
    from musubi.data.control_size import FixedSize as FixedSize
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
    from musubi.inference.latents import Latents as Latents
    from musubi.inference.loras import LoRAUse as LoRAUse
    from musubi.inference.media import Image as Image
    from musubi.inference.media import Video as Video
    from musubi.inference.pipeline import Pipeline as Pipeline
    from musubi.inference.prompt_file import read_prompts as read_prompts
    from musubi.inference.prompt_line import PromptLine as PromptLine
    from musubi.inference.request import Request as Request
    from musubi.inference.session import Session as Session
    from musubi.inference.single_frame import SingleFrame as SingleFrame
    from musubi.memory.activation_offload import ActivationOffload as ActivationOffload
    from musubi.memory.attention import Attention as Attention
    from musubi.memory.block_swap import BlockSwap as BlockSwap
    from musubi.memory.checkpointing import GradientCheckpointing as GradientCheckpointing
    from musubi.memory.compiling import Compile as Compile
    from musubi.memory.encoders import TextEncoderMemory as TextEncoderMemory
    from musubi.memory.fit import Memory as Memory
    from musubi.memory.hardware import Hardware as Hardware
    from musubi.memory.plan import Plan as Plan
    from musubi.memory.policy import MemoryPolicy as MemoryPolicy
    from musubi.memory.quantise import NF4 as NF4
    from musubi.memory.quantise import FP8Cast as FP8Cast
    from musubi.memory.quantise import FP8Scaled as FP8Scaled
    from musubi.memory.quantise import Int8Scaled as Int8Scaled
    from musubi.memory.vae import VAETiling as VAETiling
    from musubi.networks.check import Check as Check
    from musubi.networks.file import LoRAFile as LoRAFile
    from musubi.networks.full import FullFineTune as FullFineTune
    from musubi.networks.loha import LoHa as LoHa
    from musubi.networks.lokr import LoKr as LoKr
    from musubi.networks.lora import DoRA as DoRA
    from musubi.networks.lora import LoRA as LoRA
    from musubi.networks.network import AdapterNetwork as AdapterNetwork
    from musubi.networks.network import Network as Network
    from musubi.networks.rules import Rule as Rule
    from musubi.networks.targets import Targets as Targets
    from musubi.noise.dpm import DPMPlusPlus as DPMPlusPlus
    from musubi.noise.embedded import Embedded as Embedded
    from musubi.noise.guidance import ClassifierFree as ClassifierFree
    from musubi.noise.guidance import Guidance as Guidance
    from musubi.noise.loss import MSE as MSE
    from musubi.noise.loss import Huber as Huber
    from musubi.noise.loss import Loss as Loss
    from musubi.noise.loss import SmoothL1 as SmoothL1
    from musubi.noise.mixture import Mixture as Mixture
    from musubi.noise.norm_preserving import NormPreserving as NormPreserving
    from musubi.noise.per_expert import PerExpert as PerExpert
    from musubi.noise.samplers import Euler as Euler
    from musubi.noise.samplers import Sampler as Sampler
    from musubi.noise.samplers import UniPC as UniPC
    from musubi.noise.skip_layer import SkipLayer as SkipLayer
    from musubi.noise.timesteps import LogitNormal as LogitNormal
    from musubi.noise.timesteps import Mode as Mode
    from musubi.noise.timesteps import ResolutionShift as ResolutionShift
    from musubi.noise.timesteps import Shift as Shift
    from musubi.noise.timesteps import Sigmoid as Sigmoid
    from musubi.noise.timesteps import TimestepSampler as TimestepSampler
    from musubi.noise.timesteps import Uniform as Uniform
    from musubi.noise.weighting import CosMap as CosMap
    from musubi.noise.weighting import NoWeighting as NoWeighting
    from musubi.noise.weighting import SigmaSqrt as SigmaSqrt
    from musubi.noise.weighting import Weighting as Weighting
    from musubi.optim.adafactor import Adafactor as Adafactor
    from musubi.optim.custom import CustomOptimizer as CustomOptimizer
    from musubi.optim.decays import CosineRestarts as CosineRestarts
    from musubi.optim.decays import InverseSqrt as InverseSqrt
    from musubi.optim.decays import Polynomial as Polynomial
    from musubi.optim.decays import Rex as Rex
    from musubi.optim.external import AdamW8bit as AdamW8bit
    from musubi.optim.external import Lion as Lion
    from musubi.optim.external import Prodigy as Prodigy
    from musubi.optim.external import ProdigyPlusScheduleFree as ProdigyPlusScheduleFree
    from musubi.optim.external import ScheduleFreeAdamW as ScheduleFreeAdamW
    from musubi.optim.optimizers import AdamW as AdamW
    from musubi.optim.optimizers import Optimizer as Optimizer
    from musubi.optim.schedules import Constant as Constant
    from musubi.optim.schedules import Cosine as Cosine
    from musubi.optim.schedules import Linear as Linear
    from musubi.optim.schedules import Schedule as Schedule
    from musubi.optim.stages import PiecewiseConstant as PiecewiseConstant
    from musubi.optim.stages import WarmupStableDecay as WarmupStableDecay
    from musubi.optim.torch_schedule import TorchSchedule as TorchSchedule
    from musubi.training.about import About as About
    from musubi.training.ema import EMA as EMA
    from musubi.training.experts import ExpertTraining as ExpertTraining
    from musubi.training.extract import extract_lora as extract_lora
    from musubi.training.merge import merge_loras as merge_loras
    from musubi.training.prior import PriorPreservation as PriorPreservation
    from musubi.training.progress import ProgressBar as ProgressBar
    from musubi.training.result import TrainResult as TrainResult
    from musubi.training.run import Run as Run
    from musubi.training.signals import finishing_on_signals as finishing_on_signals
    from musubi.training.trackers import TrackerCallback as TrackerCallback
    from musubi.training.trainer import Trainer as Trainer
    from musubi.training.validation import Validation as Validation

__version__ = "0.1.0"

_HOME = {
    "architecture": ("Architecture", "Geometry"),
    "architectures.flux_kontext.api": (
        "FluxKontextCache",
        "FluxKontextDataset",
        "FluxKontextPipeline",
        "FluxKontextTrainer",
    ),
    "architectures.flux_kontext.spec": ("FluxKontext",),
    "architectures.framepack.api": ("FramePackCache", "FramePackDataset", "FramePackPipeline", "FramePackTrainer"),
    "architectures.framepack.spec": ("FramePack",),
    "architectures.hunyuan_video.api": (
        "HunyuanVideoCache",
        "HunyuanVideoDataset",
        "HunyuanVideoPipeline",
        "HunyuanVideoTrainer",
    ),
    "architectures.hunyuan_video.spec": ("HunyuanVideo",),
    "architectures.qwen_image.api": ("QwenImageCache", "QwenImageDataset", "QwenImagePipeline", "QwenImageTrainer"),
    "architectures.qwen_image.spec": ("QwenImage",),
    "architectures.wan.api": ("WanCache", "WanDataset", "WanPipeline", "WanTrainer"),
    "architectures.wan.one_frame": ("OneFrame",),
    "architectures.wan.spec": ("Wan",),
    "cache.cache": ("Cache",),
    "cache.diff": ("Diff",),
    "core.control": ("CancelToken",),
    "core.errors": ("CacheError", "ConfigError", "DataError", "Issue", "MusubiError", "RunError", "WeightsError"),
    "core.events": (
        "Band",
        "Event",
        "Finished",
        "Progress",
        "Removed",
        "RolledBack",
        "Sampled",
        "Saved",
        "Started",
        "StepEnded",
        "Validated",
        "Warned",
        "WeightNorms",
    ),
    "core.refs": ("WeightsRef",),
    "data.captions": ("Captions",),
    "data.control_size": ("ControlSize", "FixedSize", "LikeTarget", "NearArea", "OwnSize"),
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
    "inference.latents": ("Latents",),
    "inference.loras": ("LoRAUse",),
    "inference.media": ("Image", "Video"),
    "inference.pipeline": ("Pipeline",),
    "inference.prompt_file": ("read_prompts",),
    "inference.prompt_line": ("PromptLine",),
    "inference.request": ("Request",),
    "inference.session": ("Session",),
    "inference.single_frame": ("SingleFrame",),
    "memory.activation_offload": ("ActivationOffload",),
    "memory.attention": ("Attention",),
    "memory.block_swap": ("BlockSwap",),
    "memory.checkpointing": ("GradientCheckpointing",),
    "memory.compiling": ("Compile",),
    "memory.encoders": ("TextEncoderMemory",),
    "memory.fit": ("Memory",),
    "memory.hardware": ("Hardware",),
    "memory.plan": ("Plan",),
    "memory.policy": ("MemoryPolicy",),
    "memory.quantise": ("FP8Cast", "FP8Scaled", "Int8Scaled", "NF4"),
    "memory.vae": ("VAETiling",),
    "networks.check": ("Check",),
    "networks.file": ("LoRAFile",),
    "networks.full": ("FullFineTune",),
    "networks.loha": ("LoHa",),
    "networks.lokr": ("LoKr",),
    "networks.lora": ("DoRA", "LoRA"),
    "networks.network": ("AdapterNetwork", "Network"),
    "networks.rules": ("Rule",),
    "networks.targets": ("Targets",),
    "noise.dpm": ("DPMPlusPlus",),
    "noise.embedded": ("Embedded",),
    "noise.guidance": ("ClassifierFree", "Guidance"),
    "noise.loss": ("MSE", "Huber", "Loss", "SmoothL1"),
    "noise.mixture": ("Mixture",),
    "noise.norm_preserving": ("NormPreserving",),
    "noise.per_expert": ("PerExpert",),
    "noise.samplers": ("Euler", "Sampler", "UniPC"),
    "noise.skip_layer": ("SkipLayer",),
    "noise.timesteps": (
        "LogitNormal",
        "Mode",
        "ResolutionShift",
        "Shift",
        "Sigmoid",
        "TimestepSampler",
        "Uniform",
    ),
    "noise.weighting": ("CosMap", "NoWeighting", "SigmaSqrt", "Weighting"),
    "optim.adafactor": ("Adafactor",),
    "optim.custom": ("CustomOptimizer",),
    "optim.decays": ("CosineRestarts", "InverseSqrt", "Polynomial", "Rex"),
    "optim.external": ("AdamW8bit", "Lion", "Prodigy", "ProdigyPlusScheduleFree", "ScheduleFreeAdamW"),
    "optim.optimizers": ("AdamW", "Optimizer"),
    "optim.schedules": ("Constant", "Cosine", "Linear", "Schedule"),
    "optim.stages": ("PiecewiseConstant", "WarmupStableDecay"),
    "optim.torch_schedule": ("TorchSchedule",),
    "training.about": ("About",),
    "training.ema": ("EMA",),
    "training.experts": ("ExpertTraining",),
    "training.extract": ("extract_lora",),
    "training.merge": ("merge_loras",),
    "training.progress": ("ProgressBar",),
    "training.prior": ("PriorPreservation",),
    "training.result": ("TrainResult",),
    "training.run": ("Run",),
    "training.signals": ("finishing_on_signals",),
    "training.trackers": ("TrackerCallback",),
    "training.trainer": ("Trainer",),
    "training.validation": ("Validation",),
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
