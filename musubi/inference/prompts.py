"""Prompts to conditions: the text stage loaded once, all texts encoded, the encoders freed again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from types import MappingProxyType
from typing import TypeVar

import attrs
import torch
from torch import Tensor, nn

from musubi.architecture import Architecture, Denoiser, Stage
from musubi.batch import Sample, collate
from musubi.memory.components import loaded, policies_within, release
from musubi.memory.policy import MemoryPolicy

C = TypeVar("C")


@attrs.frozen(eq=False)
class Prompts:
    """Encoded texts, on the CPU, by their words."""

    tensors: Mapping[str, Mapping[str, Tensor]]

    def conditions(
        self,
        denoiser: Denoiser[C],
        texts: Sequence[str],
        *,
        device: torch.device,
        extra: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> C:
        """Return the conditions of a batch with one text for each item; every text was encoded before.

        ``extra`` are tensors of all items beside the texts', without a batch dimension.
        """
        batch = collate([{**self.tensors[text], **extra} for text in texts], items=texts, bucket="prompts")
        return denoiser.conditions(batch.to(str(device)))

    def missing(self, texts: Iterable[str]) -> tuple[str, ...]:
        """Return the texts that are not encoded yet, each once."""
        return tuple(dict.fromkeys(text for text in texts if text not in self.tensors))

    def plus(self, other: Prompts) -> Prompts:
        """Return the texts of both."""
        return Prompts({**self.tensors, **other.tensors})


def encode_prompts(
    architecture: Architecture,
    texts: Iterable[str],
    *,
    policies: Sequence[MemoryPolicy] = (),
    device: torch.device,
    dtype: torch.dtype,
) -> Prompts:
    """Encode every text once with the architecture's text encoders, which are freed before this returns.

    ``policies`` are the pipeline's or trainer's: what they ask for in the text encoders is done.
    """
    samples = [Sample(name=text, caption=text) for text in dict.fromkeys(texts)]
    tensors: dict[str, dict[str, Tensor]] = {sample.name: {} for sample in samples}
    for stage in text_stages(architecture) if samples else ():
        encoded = _encode(architecture, stage, samples, policies, device=device, dtype=dtype)
        for name, found in encoded.items():
            tensors[name].update(found)
        release(device)
    return Prompts(tensors)


def text_stages(architecture: Architecture) -> tuple[Stage, ...]:
    """Return the stages that read nothing but the caption."""
    return tuple(stage for stage in architecture.stages if stage.reads == ("caption",))


def _encode(
    architecture: Architecture,
    stage: Stage,
    samples: Sequence[Sample],
    policies: Sequence[MemoryPolicy],
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Mapping[str, Tensor]]:
    codec = architecture.codec()
    with ExitStack() as stack, torch.no_grad():
        models: dict[str, nn.Module] = {}
        for name in stage.components:
            component = architecture.component(name)
            within = policies_within(policies, component)
            models[name] = stack.enter_context(loaded(codec, component, within, device=device, dtype=dtype))
        entries = codec.encode(stage, models, samples)
        return {entry.name: {n: t.cpu() for n, t in entry.tensors.items()} for entry in entries}
