"""The four nouns for FramePack: the generic ones with the model pinned, no behaviour of their own."""

from __future__ import annotations

import attrs

from musubi.architecture import Geometry
from musubi.architectures.framepack.spec import GEOMETRY, FramePack
from musubi.cache.cache import Cache
from musubi.data.dataset import Dataset
from musubi.inference.pipeline import Pipeline
from musubi.training.trainer import Trainer


@attrs.frozen(kw_only=True)
class FramePackDataset(Dataset):
    """Clips in the sizes that FramePack takes: sides in 16 pixels, 4 k + 1 frames, of which 37 make a section.

    Example:
        >>> from musubi import FramePackDataset
        >>> FramePackDataset.from_folder("clips", resolution=640).geometry.fps
        30.0
    """

    geometry: Geometry = attrs.field(default=GEOMETRY, repr=False)


@attrs.frozen(kw_only=True)
class FramePackCache(Cache[FramePack]):
    """Latents, text and image embeddings of FramePack on disk."""

    model: FramePack


@attrs.frozen(kw_only=True)
class FramePackTrainer(Trainer[FramePack]):
    """Train a network on FramePack."""

    model: FramePack
    cache: FramePackCache


@attrs.frozen(kw_only=True)
class FramePackPipeline(Pipeline[FramePack]):
    """Make clips with FramePack."""

    model: FramePack
