"""The four nouns for HunyuanVideo: the generic ones with the model pinned, no behaviour of their own."""

from __future__ import annotations

import attrs

from musubi.architecture import Geometry
from musubi.architectures.hunyuan_video.spec import GEOMETRY, HunyuanVideo
from musubi.cache.cache import Cache
from musubi.data.dataset import Dataset
from musubi.inference.pipeline import Pipeline
from musubi.training.trainer import Trainer


@attrs.frozen(kw_only=True)
class HunyuanVideoDataset(Dataset):
    """Clips and pictures in the sizes that HunyuanVideo takes: sides in 16 pixels, 4 k + 1 frames.

    Example:
        >>> from musubi import HunyuanVideoDataset
        >>> HunyuanVideoDataset.from_folder("clips", resolution=544).geometry.fps
        24.0
    """

    geometry: Geometry = attrs.field(default=GEOMETRY, repr=False)


@attrs.frozen(kw_only=True)
class HunyuanVideoCache(Cache[HunyuanVideo]):
    """Latents and text embeddings of HunyuanVideo on disk."""

    model: HunyuanVideo


@attrs.frozen(kw_only=True)
class HunyuanVideoTrainer(Trainer[HunyuanVideo]):
    """Train a network on HunyuanVideo."""

    model: HunyuanVideo
    cache: HunyuanVideoCache


@attrs.frozen(kw_only=True)
class HunyuanVideoPipeline(Pipeline[HunyuanVideo]):
    """Make clips with HunyuanVideo."""

    model: HunyuanVideo
