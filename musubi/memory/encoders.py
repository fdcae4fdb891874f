"""Memory policies for text encoders."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.memory.components import fit_context
from musubi.memory.on_host import ComputeOnHost, TablesOnHost
from musubi.memory.policy import FitContext, MemoryPolicy, Phase, Placement, arrange

if TYPE_CHECKING:
    from musubi.architecture import Component

_ACTING = (Phase.QUANTISE, Phase.SWAP)
"""What makes sense in a text encoder: it computes no gradients, and too little for anything but its weights."""


@attrs.frozen(kw_only=True)
class TextEncoderMemory(MemoryPolicy):
    """Apply policies to the text encoders instead of the denoiser: while captions are cached and prompts encoded.

    ``policies`` are ones that act on weights: ``Int8Scaled`` and its like, which change the embeddings a little, and
    ``BlockSwap``, which does not. With a swap, the table of token embeddings is looked up in host memory. ``on_cpu``
    leaves the encoders in host memory altogether and computes there. Small encoders whose architecture names no blocks
    are left as they are.

    Example:
        >>> from musubi import BlockSwap, Int8Scaled, TextEncoderMemory
        >>> memory = TextEncoderMemory(policies=(Int8Scaled(), BlockSwap(blocks=16)))
        >>> [policy.kind for policy in memory.policies]
        ['int8_scaled', 'block_swap']
    """

    kind: ClassVar[str] = "text_encoder"
    phase: ClassVar[Phase] = Phase.SWAP
    for_components: ClassVar[bool] = True

    policies: tuple[MemoryPolicy, ...] = ()
    on_cpu: bool = False

    def problems(self) -> Iterable[Issue]:
        """Yield what is wrong whatever the model is."""
        if not (self.policies or self.on_cpu):
            yield Issue("policies", "names nothing to do", "give policies=(Int8Scaled(),), or on_cpu=True")
        for index, policy in enumerate(self.policies):
            path, name = f"policies[{index}]", type(policy).__name__
            if policy.for_components:
                yield Issue(path, f"{name} is itself about components", "list it beside TextEncoderMemory")
            elif policy.phase not in _ACTING:
                yield Issue(path, f"{name} does nothing for a text encoder", "leave it out, or give it to the denoiser")
            elif self.on_cpu and policy.loads_on_host:
                yield Issue(path, f"{name} does nothing for an encoder on the CPU", "leave it out, or on_cpu")

    def check(self, context: FitContext) -> Iterable[Issue]:
        """Yield what is wrong for the text encoders of this model, each problem once."""
        if context.components is None:
            return
        encoders = [component for component in context.components if _acts_in(component)]
        if not encoders:
            message = f"{context.title} has no text encoder that policies can act in"
            yield Issue("", message, "leave TextEncoderMemory out")
        found = [issue for encoder in encoders for issue in self._problems_in(encoder)]
        yield from dict.fromkeys(found)

    def missing(self, placement: Placement) -> Iterable[Issue]:
        """Yield what the policies for the encoders lack."""
        for index, policy in enumerate(self.policies):
            yield from (issue.under(f"policies[{index}]") for issue in policy.missing(placement))

    def within(self, component: Component) -> tuple[MemoryPolicy, ...]:
        """Return the policies for a text encoder, with what follows from them."""
        if not _acts_in(component):
            return ()
        if self.on_cpu:
            return (*self.policies, ComputeOnHost())
        swaps = any(policy.loads_on_host for policy in self.policies)
        return (*self.policies, TablesOnHost(tables=component.tables)) if swaps and component.tables else self.policies

    def _problems_in(self, encoder: Component) -> Iterable[Issue]:
        context = fit_context(encoder)
        try:
            arrange(self.policies, context)
        except ConfigError as error:
            for issue in error.issues:
                path, message = (text.replace("memory[", "policies[", 1) for text in (issue.path, issue.message))
                yield attrs.evolve(issue, path=path, message=message)
        for index, policy in enumerate(self.policies):
            if tuple(policy.choices(context)) != ((policy,),):
                message = f"{type(policy).__name__} leaves something open, which is settled for the denoiser only"
                yield Issue(f"policies[{index}]", message, "say how much, e.g. BlockSwap(blocks=16)")


def _acts_in(component: Component) -> bool:
    return component.role == "text" and bool(component.layout.blocks)
