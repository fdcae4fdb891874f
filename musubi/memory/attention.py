"""Which kernel computes attention, chosen for one model and given back in the end."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import field, one_of
from musubi.memory.policy import FitContext, MemoryPolicy, Phase, Placement

if TYPE_CHECKING:
    from torch import nn


BACKENDS: Mapping[str, str] = MappingProxyType(
    {
        "sdpa": "native",
        "sdpa_cudnn": "_native_cudnn",
        "sdpa_efficient": "_native_efficient",
        "sdpa_flash": "_native_flash",
        "sdpa_math": "_native_math",
        "flash": "flash",
        "flash3": "_flash_3",
        "sage": "sage",
        "xformers": "xformers",
    }
)
"""What diffusers calls each backend."""

_ANYWHERE = frozenset(("sdpa", "sdpa_flash", "sdpa_math"))
_HALF_ONLY = frozenset(("sdpa_cudnn", "flash", "flash3", "sage"))


@attrs.frozen(kw_only=True)
class Attention(MemoryPolicy):
    """Compute attention by one backend: torch's ``sdpa``, which picks a kernel itself, or a package of its own.

    Torch's kernels can be named, too: ``sdpa_cudnn``, ``sdpa_efficient``, ``sdpa_flash``, and ``sdpa_math``, which
    keeps all scores and is there to compare with. ``flash`` (the package ``flash-attn``), ``flash3`` and ``xformers``
    train and generate; ``sage`` only generates, as it has no backward. Whatever computes it, padding is never attended
    to and no mask is built.

    Another model of the same process keeps its own backend, and this one has its former back in the end.

    Example:
        >>> from musubi import Attention
        >>> Attention(backend="flash")
        Attention(backend='flash')
    """

    kind: ClassVar[str] = "attention"
    phase: ClassVar[Phase] = Phase.ATTENTION

    backend: str = field(default="sdpa", check=one_of(*BACKENDS))

    def check(self, context: FitContext) -> Iterable[Issue]:
        if self.backend == "sage" and context.training:
            hint = "train with sdpa, flash, flash3 or xformers; a pipeline can generate with sage"
            yield Issue("backend", "sage has no backward, so nothing can be trained with it", hint)

    def missing(self, placement: Placement) -> Iterable[Issue]:
        """Yield what is not installed, in the words of diffusers, and where the backend cannot compute."""
        from diffusers.models.attention_dispatch import (
            AttentionBackendName,
            _check_attention_backend_requirements,  # pyright: ignore[reportPrivateUsage]  # no public question for it
        )

        try:
            _check_attention_backend_requirements(AttentionBackendName(BACKENDS[self.backend]))
        except RuntimeError as error:
            yield Issue("backend", str(error), "or take sdpa, which torch brings")
        yield from self._unfit(placement)

    def place(self, model: nn.Module, placement: Placement) -> AbstractContextManager[None]:
        _refuse(self.missing(placement))
        return self._set(model)

    def _unfit(self, placement: Placement) -> Iterable[Issue]:
        import torch

        if self.backend not in _ANYWHERE and placement.device.type != "cuda":
            message = f"{self.backend} needs a CUDA device, and {placement.title} is on {placement.device}"
            yield Issue("backend", message, "take sdpa")
        if self.backend in _HALF_ONLY and placement.dtype not in {torch.bfloat16, torch.float16}:
            name = str(placement.dtype).removeprefix("torch.")
            message = f"{self.backend} computes in bfloat16 and float16, and {placement.title} in {name}"
            yield Issue("backend", message, "take sdpa, or another precision")

    @contextmanager
    def _set(self, model: nn.Module) -> Generator[None]:
        """Tell the model's attention processors; diffusers' own function would tell all models of the process."""
        from diffusers.models.attention_dispatch import AttentionBackendName

        found = [getattr(module, "processor", None) for module in model.modules()]
        processors = {id(processor): processor for processor in found if hasattr(processor, "_attention_backend")}
        if not processors and self.backend != "sdpa":
            message = f"this model's attention cannot be computed by {self.backend}"
            _refuse([Issue("backend", message, "take sdpa")])
        own = [(processor, vars(processor).get("_attention_backend")) for processor in processors.values()]
        try:
            for processor, _ in own:
                vars(processor)["_attention_backend"] = AttentionBackendName(BACKENDS[self.backend])
            yield
        finally:
            for processor, former in own:
                vars(processor).pop("_attention_backend", None)
                if former is not None:
                    vars(processor)["_attention_backend"] = former


def _refuse(issues: Iterable[Issue]) -> None:
    found = [issue.under("memory") for issue in issues]
    if found:
        raise ConfigError("attention", found)
