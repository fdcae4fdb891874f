"""Memory policies for the VAE."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import count, field
from musubi.memory.policy import FitContext, MemoryPolicy, Phase, Placement

if TYPE_CHECKING:
    from torch import nn

    from musubi.architecture import Component


@attrs.frozen(kw_only=True)
class VAETiling(MemoryPolicy):
    """Encode and decode large pictures and frames in square tiles of ``tile`` pixels that overlap by ``overlap``.

    The peak is then that of one tile; what fits into one is not divided. Neighbours are blended where they overlap, but
    a tile knows nothing of the rest of the picture, so numbers differ a little: take it where memory asks for it. Along
    time nothing is divided: the video VAEs go through a clip one latent frame at a time anyway, and exactly.

    Example:
        >>> from musubi import VAETiling
        >>> VAETiling(tile=512).to_dict()
        {'kind': 'vae_tiling', 'tile': 512, 'overlap': 64}
    """

    kind: ClassVar[str] = "vae_tiling"
    phase: ClassVar[Phase] = Phase.ACTIVATIONS
    for_components: ClassVar[bool] = True
    changes_results: ClassVar[bool] = True

    tile: int = field(default=256, check=count(1))
    overlap: int = field(default=64, check=count(1))

    def problems(self) -> Iterable[Issue]:
        """Yield what is wrong whatever the model is."""
        if self.overlap >= self.tile:
            yield Issue("overlap", f"must be less than the tile, {self.tile}, got {self.overlap}")

    def check(self, context: FitContext) -> Iterable[Issue]:
        """Yield what is wrong for the VAE of this model."""
        if context.components is None:
            return
        multiples = [component.tile for component in context.components if _acts_in(component)]
        if not multiples:
            yield Issue("", f"the VAE of {context.title} cannot work in tiles", "leave VAETiling out")
        for name, value in (("tile", self.tile), ("overlap", self.overlap)):
            for multiple in multiples:
                if multiple is not None and value % multiple:
                    hint = f"nearest are {max(1, value // multiple) * multiple} and {-(-value // multiple) * multiple}"
                    yield Issue(name, f"must be a multiple of {multiple} for {context.title}, got {value}", hint)

    def within(self, component: Component) -> tuple[MemoryPolicy, ...]:
        """Return this very policy for a VAE that can work in tiles."""
        return (self,) if _acts_in(component) else ()

    def place(self, model: nn.Module, placement: Placement) -> AbstractContextManager[None]:
        """Divide the work of diffusers' class for the length of a ``with``; raises ``ConfigError`` if it cannot."""
        vae = next((module for module in model.modules() if hasattr(module, "tile_sample_stride_height")), None)
        if vae is None:
            message = f"{placement.title} ({type(model).__name__}) cannot work in tiles"
            raise ConfigError(type(self).__name__, [Issue("", message, "leave VAETiling out")])
        sizes = {f"tile_sample_min_{side}": self.tile for side in ("height", "width")}
        strides = {f"tile_sample_stride_{side}": self.tile - self.overlap for side in ("height", "width")}
        return _set(vae, {"use_tiling": True, **sizes, **strides})


def _acts_in(component: Component) -> bool:
    return component.role == "vae" and component.tile is not None


@contextmanager
def _set(vae: nn.Module, values: Mapping[str, bool | int]) -> Generator[None]:
    """Give attributes other values for the length of a ``with``."""
    before = {name: getattr(vae, name) for name in values}
    try:
        for name, value in values.items():
            setattr(vae, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(vae, name, value)
