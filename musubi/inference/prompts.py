"""Prompts to conditions: the text stage loaded once, all texts encoded, the encoders freed again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import attrs
import torch
from torch import Tensor

from musubi.architecture import Architecture, Codec, Denoiser, Stage
from musubi.batch import Sample, collate

C = TypeVar("C")


@attrs.frozen(eq=False)
class Prompts:
    """Encoded texts, on the CPU, by their words."""

    tensors: Mapping[str, Mapping[str, Tensor]]

    def conditions(self, denoiser: Denoiser[C], texts: Sequence[str], *, device: torch.device) -> C:
        """Return the conditions of a batch with one text for each item; every text was encoded before."""
        batch = collate([self.tensors[text] for text in texts], items=texts, bucket="prompts")
        return denoiser.conditions(batch.to(str(device)))

    def missing(self, texts: Iterable[str]) -> tuple[str, ...]:
        """Return the texts that are not encoded yet, each once."""
        return tuple(dict.fromkeys(text for text in texts if text not in self.tensors))

    def plus(self, other: Prompts) -> Prompts:
        """Return the texts of both."""
        return Prompts({**self.tensors, **other.tensors})


def encode_prompts(
    architecture: Architecture, texts: Iterable[str], *, device: torch.device, dtype: torch.dtype
) -> Prompts:
    """Encode every text once with the architecture's text encoders, which are freed before this returns."""
    samples = [Sample(name=text, caption=text) for text in dict.fromkeys(texts)]
    tensors: dict[str, dict[str, Tensor]] = {sample.name: {} for sample in samples}
    codec = architecture.codec()
    for stage in text_stages(architecture):
        for name, found in _encode(codec, stage, samples, device, dtype).items():
            tensors[name].update(found)
    release(device)
    return Prompts(tensors)


def text_stages(architecture: Architecture) -> tuple[Stage, ...]:
    """Return the stages that read nothing but the caption."""
    return tuple(stage for stage in architecture.stages if stage.reads == ("caption",))


def release(device: torch.device) -> None:
    """Give the memory of freed models back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _encode(
    codec: Codec, stage: Stage, samples: Sequence[Sample], device: torch.device, dtype: torch.dtype
) -> dict[str, Mapping[str, Tensor]]:
    if not samples:
        return {}
    with torch.no_grad():
        models = {component: codec.load(component, device=device, dtype=dtype) for component in stage.components}
        entries = codec.encode(stage, models, samples)
        return {entry.name: {n: t.cpu() for n, t in entry.tensors.items()} for entry in entries}
