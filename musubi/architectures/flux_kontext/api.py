"""The four nouns for FLUX.1 Kontext: the generic ones with the model pinned, no behaviour of their own."""

from __future__ import annotations

import attrs

from musubi.architecture import Geometry
from musubi.architectures.flux_kontext.spec import GEOMETRY, FluxKontext
from musubi.cache.cache import Cache
from musubi.data.dataset import Dataset
from musubi.inference.pipeline import Pipeline
from musubi.training.trainer import Trainer


@attrs.frozen(kw_only=True)
class FluxKontextDataset(Dataset):
    """Pairs of pictures in the sizes that FLUX.1 Kontext takes: sides in 16 pixels.

    Example:
        >>> from musubi import FluxKontextDataset
        >>> FluxKontextDataset.from_jsonl("pairs.jsonl", resolution=1024).with_control(required=True).control
        'required'
    """

    geometry: Geometry = attrs.field(default=GEOMETRY, repr=False)


@attrs.frozen(kw_only=True)
class FluxKontextCache(Cache[FluxKontext]):
    """Latents and text embeddings of FLUX.1 Kontext on disk."""

    model: FluxKontext


@attrs.frozen(kw_only=True)
class FluxKontextTrainer(Trainer[FluxKontext]):
    """Train a network on FLUX.1 Kontext."""

    model: FluxKontext
    cache: FluxKontextCache


@attrs.frozen(kw_only=True)
class FluxKontextPipeline(Pipeline[FluxKontext]):
    """Change pictures with FLUX.1 Kontext."""

    model: FluxKontext
