"""What is trained of the reference's files: latents with their text, as items and outputs of a manifest."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import attrs

from musubi.architecture import Architecture, Stage
from musubi.cache.manifest import CachedItem, Manifest, Output
from musubi.compat.cache_file import CacheFile, LatentFile
from musubi.core.errors import Issue
from musubi.data.sample import Item, Window

IMPORTED = "imported-"
"""What the fingerprints of imported files begin with: no build makes such, so none takes them for its own work."""

_DTYPES: Mapping[str, str] = MappingProxyType({"F32": "float32", "F16": "float16", "BF16": "bfloat16"})


@attrs.frozen(kw_only=True, eq=False)
class Entry:
    """The latent files of one picture or window, several of them its sections in order, and its text."""

    name: str
    latents: Sequence[LatentFile]
    text: CacheFile

    def item(self, model: Architecture, *, batch_size: int, repeats: int) -> Item:
        """Return what a build would have listed; where the media file lies the reference does not say."""
        name, (height, width) = self.latents[0].name, self.latents[0].shape[-2:]
        stride = model.geometry.stride
        return Item(
            name=self.name,
            media=name.stem,
            path=Path(name.stem),
            kind="image" if name.window is None else "video",
            captions=(self.text.facts["caption1"],),
            size=name.size,
            bucket=(width * stride, height * stride),
            window=name.window or Window(),
            repeats=repeats,
            batch_size=batch_size,
        )


def manifest_of(
    entries: Sequence[Entry],
    model: Architecture,
    *,
    batch_size: int,
    repeats: int,
    problems: Iterable[Issue],
    notes: Iterable[Issue],
) -> Manifest:
    """Return the manifest of imported entries; their stages are the model's first for pixels and for captions."""
    pixels, words = _stages(model)
    items: list[CachedItem] = []
    outputs: dict[str, Output] = {}
    for entry in entries:
        made = (_output(pixels, [latent.file for latent in entry.latents]), _output(words, [entry.text]))
        outputs |= {output.fingerprint: output for output in made}
        item = entry.item(model, batch_size=batch_size, repeats=repeats)
        items.append(CachedItem(item=item, outputs={output.stage: (output.fingerprint,) for output in made}))
    return Manifest(
        architecture=model.name,
        dtype=_dtype(entries),
        dataset=f"{IMPORTED}musubi-tuner",
        stages=(pixels.name, words.name),
        items=tuple(items),
        outputs=outputs,
        problems=tuple(problems),
        notes=tuple(notes),
    )


def _stages(model: Architecture) -> tuple[Stage, Stage]:
    pixels = next(stage for stage in model.stages if "pixels" in stage.reads)
    return pixels, next(stage for stage in model.stages if "pixels" not in stage.reads and "caption" in stage.reads)


def _output(stage: Stage, made: Sequence[CacheFile]) -> Output:
    """Return the files as an output whose fingerprint is that of their names and contents."""
    files = tuple(file.listed for file in made)
    told = json.dumps([stage.name, [[file.name, file.sha256] for file in files]])
    digest = hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()
    return Output(stage=stage.name, fingerprint=IMPORTED + digest[:23], files=files)


def _dtype(entries: Sequence[Entry]) -> str:
    """Return the type of most latents, which a later build goes on in."""
    found = Counter(latent.file.dtypes["latents"] for entry in entries for latent in entry.latents)
    return _DTYPES.get(found.most_common(1)[0][0], "float32")
