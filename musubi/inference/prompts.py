"""Prompts to conditions: the text stage loaded once, all texts encoded, the encoders freed again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from types import MappingProxyType
from typing import TypeVar

import attrs
import torch
from torch import Tensor, nn

from musubi.architecture import Architecture, Asked, Denoiser, Stage
from musubi.batch import Sample, collate
from musubi.memory.components import loaded, policies_within, release
from musubi.memory.policy import MemoryPolicy

C = TypeVar("C")


@attrs.frozen
class Words:
    """A text to encode, with the pictures by role that its encoder sees too; ``shown`` is equal for equal ones."""

    text: str
    shown: str = ""
    pictures: Mapping[str, tuple[Tensor, ...]] = attrs.field(factory=dict, eq=False, repr=False)


def words_of(architecture: Architecture, texts: Iterable[str], asked: Asked | None = None) -> tuple[Words, ...]:
    """Return texts of one request as what is encoded: with its pictures, where the text encoders look at them."""
    pictures = asked.media if asked is not None and sees_pictures(architecture) else {}
    shown = told_apart(pictures) if pictures else ""
    return tuple(Words(text, shown, pictures) for text in texts)


def sees_pictures(architecture: Architecture) -> bool:
    """Return whether texts are encoded together with pictures."""
    return any("originals" in stage.reads for stage in architecture.text_stages)


def told_apart(media: Mapping[str, tuple[Tensor, ...]]) -> str:
    """Return what is equal for equal pictures and clips."""
    found = hashlib.sha256()
    for role, tensors in sorted(media.items()):
        for tensor in tensors:
            found.update(f"{role} {tuple(tensor.shape)}".encode())
            found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


@attrs.frozen(eq=False)
class Prompts:
    """Encoded texts, on the CPU, by their words."""

    tensors: Mapping[Words, Mapping[str, Tensor]]

    def conditions(
        self,
        denoiser: Denoiser[C],
        words: Sequence[Words],
        *,
        device: torch.device,
        extra: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> C:
        """Return the conditions of a batch with one text for each item; every text was encoded before.

        ``extra`` are tensors of all items beside the texts', without a batch dimension.
        """
        entries = [{**self.tensors[one], **extra} for one in words]
        batch = collate(entries, items=[one.text for one in words], bucket="prompts")
        return denoiser.conditions(batch.to(str(device)))

    def missing(self, words: Iterable[Words]) -> tuple[Words, ...]:
        """Return what is not encoded yet, each once."""
        return tuple(dict.fromkeys(one for one in words if one not in self.tensors))

    def plus(self, other: Prompts) -> Prompts:
        """Return the texts of both."""
        return Prompts({**self.tensors, **other.tensors})


def encode_prompts(
    architecture: Architecture,
    words: Iterable[Words],
    *,
    policies: Sequence[MemoryPolicy] = (),
    device: torch.device,
    dtype: torch.dtype,
) -> Prompts:
    """Encode every text once with the architecture's text encoders, which are freed before this returns.

    ``policies`` are the pipeline's or trainer's: what they ask for in the text encoders is done.
    """
    wanted = tuple(dict.fromkeys(words))
    samples = [Sample(name=str(n), caption=one.text, controls=one.pictures) for n, one in enumerate(wanted)]
    tensors: list[dict[str, Tensor]] = [{} for _ in wanted]
    for stage in architecture.text_stages if samples else ():
        encoded = _encode(architecture, stage, samples, policies, device=device, dtype=dtype)
        for sample, found in zip(samples, tensors, strict=True):
            found.update(encoded[sample.name])
        release(device)
    return Prompts(dict(zip(wanted, tensors, strict=True)))


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
