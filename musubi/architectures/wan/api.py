"""The four nouns for Wan: the generic ones with the model pinned, no behaviour of their own."""

from __future__ import annotations

import attrs

from musubi.architecture import Geometry
from musubi.architectures.wan.spec import Wan
from musubi.architectures.wan.tasks import GEOMETRY
from musubi.cache.cache import Cache
from musubi.data.dataset import Dataset
from musubi.inference.pipeline import Pipeline
from musubi.training.trainer import Trainer


@attrs.frozen(kw_only=True)
class WanDataset(Dataset):
    """Pictures and clips in the sizes and lengths that Wan takes: sides in 16 pixels, 4 k + 1 frames, 16 a second.

    For Wan 2.2 TI2V 5B a cache takes sides in 32 pixels and 24 frames a second instead; ``geometry`` scans so, too.

    Example:
        >>> from musubi import WanDataset
        >>> WanDataset.from_folder("clips", resolution=(832, 480), frames=(1, 25, 49)).geometry.fps
        16.0
    """

    geometry: Geometry = attrs.field(default=GEOMETRY, repr=False)


@attrs.frozen(kw_only=True)
class WanCache(Cache[Wan]):
    """Latents and text embeddings of Wan on disk."""

    model: Wan


@attrs.frozen(kw_only=True)
class WanTrainer(Trainer[Wan]):
    """Train a network on Wan."""

    model: Wan
    cache: WanCache


@attrs.frozen(kw_only=True)
class WanPipeline(Pipeline[Wan]):
    """Generate pictures and clips with Wan."""

    model: Wan
