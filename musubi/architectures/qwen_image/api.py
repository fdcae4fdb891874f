"""The four nouns for Qwen-Image: the generic ones with the model pinned, no behaviour of their own."""

from __future__ import annotations

import attrs

from musubi.architecture import Geometry
from musubi.architectures.qwen_image.spec import GEOMETRY, QwenImage
from musubi.cache.cache import Cache
from musubi.data.dataset import Dataset
from musubi.inference.pipeline import Pipeline
from musubi.training.trainer import Trainer


@attrs.frozen(kw_only=True)
class QwenImageDataset(Dataset):
    """Pictures in the sizes that Qwen-Image takes: sides in 16 pixels.

    Example:
        >>> from musubi import QwenImageDataset
        >>> QwenImageDataset.from_jsonl("pairs.jsonl", resolution=1024).with_control(required=True).control
        'required'
    """

    geometry: Geometry = attrs.field(default=GEOMETRY, repr=False)


@attrs.frozen(kw_only=True)
class QwenImageCache(Cache[QwenImage]):
    """Latents and text embeddings of Qwen-Image on disk."""

    model: QwenImage


@attrs.frozen(kw_only=True)
class QwenImageTrainer(Trainer[QwenImage]):
    """Train a network on Qwen-Image."""

    model: QwenImage
    cache: QwenImageCache


@attrs.frozen(kw_only=True)
class QwenImagePipeline(Pipeline[QwenImage]):
    """Generate pictures with Qwen-Image."""

    model: QwenImage
