"""Compiling what a block computes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import did_you_mean, field, one_of
from musubi.memory.policy import MemoryPolicy, Phase, Placement, blocks_of

if TYPE_CHECKING:
    from torch import nn

RECOMPILES = 64
"""Graphs that one class of block may have: its shapes, first in training or not, with gradients or without.

torch's own limit is 8, after which it computes as if nothing were compiled.
"""


def _a_backend(value: object) -> str | None:
    """Accept a name; which ones exist, torch knows."""
    if not isinstance(value, str) or not value.strip():
        return f"must be the name of a backend, got {value!r}"
    return f"{value} cannot be: its results lie where the next block's will be" if "cudagraph" in value else None


@attrs.frozen(kw_only=True)
class Compile(MemoryPolicy):
    """Compile each block's forward: fewer, fused kernels, and fewer intermediate results in memory.

    Blocks of one class are compiled once, in the first step, which takes minutes with ``inductor``; there is one graph
    for training, one more for a block whose input has no gradient, as the first one's, and one without gradients.
    Adapters and quantised matrices are compiled with the block; what streams weights or moves activations stays
    outside, so that it causes no compiling again. Results differ by rounding, as those of any other kernel do.

    Args:
        mode: ``default``, or ``max-autotune-no-cudagraphs``, which tries more kernels and compiles for longer. torch's
            modes with CUDA graphs are not offered: their results lie where the next block's will be.
        dynamic: Whether lengths of sequences are left open. None compiles for the first length, and for any length once
            there is a second one (a caption of other length, another bucket); True from the start; False never, so that
            every bucket is compiled by itself.
        fullgraph: Whether a block that cannot be one graph is an error, rather than cut in several. The dropout of
            whole modules (``module_dropout``), for one, cuts.
        backend: What compiles: ``inductor`` needs a C++ compiler or, for CUDA, Triton.

    Example:
        >>> from musubi import Compile
        >>> Compile(dynamic=True).dynamic
        True
    """

    kind: ClassVar[str] = "compile"
    phase: ClassVar[Phase] = Phase.COMPILE

    mode: Literal["default", "max-autotune-no-cudagraphs"] = field(
        default="default", check=one_of("default", "max-autotune-no-cudagraphs")
    )
    dynamic: bool | None = None
    fullgraph: bool = False
    backend: str = field(default="inductor", check=_a_backend)

    def problems(self) -> Iterable[Issue]:
        """Yield what does not fit together."""
        if self.mode != "default" and self.backend != "inductor":
            yield Issue("mode", f"is one of inductor's, but the backend is {self.backend}", "leave one of them out")

    def missing(self, placement: Placement) -> Iterable[Issue]:
        import torch

        known = torch.compiler.list_backends(exclude_tags=())
        if self.backend not in known:
            near = did_you_mean(self.backend, known)
            yield Issue("backend", f"torch has none called {self.backend!r}{near}", f"known: {', '.join(known)}")

    def place(self, model: nn.Module, placement: Placement) -> AbstractContextManager[None]:
        issues = tuple(self.missing(placement))
        if issues:
            raise ConfigError(type(self).__name__, issues)
        return self._compiled(blocks_of(model, placement.layout))

    @contextmanager
    def _compiled(self, blocks: Iterable[nn.Module]) -> Generator[None]:
        from musubi.memory.forwards import wrapped

        compiled: dict[object, Callable[..., Any]] = {}

        def around(block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
            if getattr(forward, "__self__", None) is not block:
                return self._compile(forward)
            function = type(block).forward
            if function not in compiled:
                compiled[function] = self._compile(function)
            return partial(compiled[function], block)

        with wrapped(blocks, around):
            yield

    def _compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        import inspect

        import torch

        # torch before 2.13 has one limit for the whole process, which is not ours to change.
        limited = "recompile_limit" in inspect.signature(torch.compile).parameters
        options: dict[str, Any] = {"recompile_limit": RECOMPILES} if limited else {}
        compiled = torch.compile(
            function, mode=self.mode, dynamic=self.dynamic, fullgraph=self.fullgraph, backend=self.backend, **options
        )
        return _minding_hooks(compiled)


def _minding_hooks(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """Return a compiled function that notices adapters, which are hooks, when they come after it was compiled.

    torch by itself would go on with what it has compiled, as if they were not there. The setting counts where the
    compiling happens, and is another one in each thread, so it is made for the length of each call.
    """
    import torch._dynamo

    patch = torch._dynamo.config.patch

    def run(*args: Any, **kwargs: Any) -> Any:
        with patch(skip_nnmodule_hook_guards=False):
            return compiled(*args, **kwargs)

    return run
