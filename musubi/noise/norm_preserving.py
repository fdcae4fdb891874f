"""Classifier-free guidance that does not make predictions longer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.core.fields import at_least, count, field
from musubi.noise.guidance import NEGATIVE, POSITIVE, Branch, ClassifierFree, Step

if TYPE_CHECKING:
    from torch import Tensor


@attrs.frozen(kw_only=True)
class NormPreserving(ClassifierFree):
    """Guide as ``ClassifierFree``, then give every token the length of the prompt's own prediction.

    A token is a square of ``patch`` x ``patch`` latent cells with all their channels. This is how Qwen-Image is
    published: large scales turn the prediction without making colours glow. Source: ``QwenImagePipeline`` of diffusers.

    Example:
        >>> from musubi import NormPreserving
        >>> NormPreserving(scale=4.0).uses_negative
        True
    """

    kind: ClassVar[str] = "norm_preserving"
    scale: float = field(default=4.0, check=at_least(0))
    patch: int = field(default=2, check=count())

    def combine(self, step: Step, velocities: Mapping[Branch, Tensor]) -> Tensor:
        """Return ``u + scale (c - u)``, each token of the length that ``c`` has there; (B, C, F, H, W)."""
        guided, own = super().combine(step, velocities), velocities[POSITIVE]
        return guided * self._ratio(own, guided) if NEGATIVE in velocities else guided

    def _ratio(self, own: Tensor, guided: Tensor) -> Tensor:
        """Return how much longer the tokens of one are than those of the other, (B, 1, F, H, W)."""
        from torch import where

        length, stretched = (self._lengths(x) for x in (own, guided))
        ratio = where(stretched > 0, length / stretched, stretched)
        return ratio.repeat_interleave(self.patch, dim=-1).repeat_interleave(self.patch, dim=-2)

    def _lengths(self, x: Tensor) -> Tensor:
        """Return the length of each token, (B, 1, F, rows, columns)."""
        tokens = x.unflatten(-1, (-1, self.patch)).unflatten(-3, (-1, self.patch))
        lengths: Tensor = tokens.square().sum(dim=(1, -3, -1)).sqrt()
        return lengths[:, None]
