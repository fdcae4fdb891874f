"""How far a predicted velocity is from the true one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

import attrs

from musubi.core.fields import field, one_of, positive
from musubi.core.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor

MeanOver = Literal["all", "mask"]


@attrs.frozen(kw_only=True)
class Loss(Spec, ABC):
    """An error for every cell of a latent, and what becomes of a loss mask.

    Args:
        mean_over: Over which cells an item's mean is taken. ``"all"``: over all of them, so what a mask leaves out
            counts as no error, and an item of which little is shown counts little. ``"mask"``: over what the mask
            shows, so every item counts the same however much of it is shown; an item of which nothing is, not at all.
    """

    family: ClassVar[str] = "loss"
    mean_over: MeanOver = field(default="all", check=one_of("all", "mask"))

    @abstractmethod
    def errors(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the error of every value, float32 of the shape of both arguments."""

    def per_item(self, predicted: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Return each item's mean error, float32 of shape (batch,), of latents of shape (batch, channels, ...).

        ``mask`` of shape (batch, frames, height, width), from 0 to 1, is what the errors of every cell are multiplied
        by; latents without frames take one of a single frame.
        """
        import torch

        errors = self.errors(predicted, target)
        if mask is None:
            return errors.flatten(1).mean(dim=1)
        shown = mask.to(errors).reshape(len(errors), 1, *errors.shape[2:])
        errors = errors * shown
        if self.mean_over == "all":
            return errors.flatten(1).mean(dim=1)
        area = shown.flatten(1).sum(dim=1) * errors.shape[1]
        return errors.flatten(1).sum(dim=1) / area.clamp_min(torch.finfo(area.dtype).tiny)


@attrs.frozen(kw_only=True)
class MSE(Loss):
    """Square the errors: the loss that flow matching is derived with.

    Example:
        >>> import torch
        >>> from musubi import MSE
        >>> MSE().errors(torch.tensor([0.5, 3.0]), torch.zeros(2))
        tensor([0.2500, 9.0000])
    """

    kind: ClassVar[str] = "mse"

    def errors(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the squares of the differences."""
        return (predicted.float() - target.float()).square()


@attrs.frozen(kw_only=True)
class Huber(Loss):
    """Square errors below ``delta``, and let larger ones grow in proportion: outliers in the data pull less.

    ``e^2 / 2`` below ``delta``, ``delta (|e| - delta / 2)`` above (Huber 1964; ``torch.nn.HuberLoss``): small errors
    count half of what they do in ``MSE``.

    Example:
        >>> import torch
        >>> from musubi import Huber
        >>> Huber(delta=1.0).errors(torch.tensor([0.5, 3.0]), torch.zeros(2))
        tensor([0.1250, 2.5000])
    """

    kind: ClassVar[str] = "huber"
    delta: float = field(default=1.0, check=positive)

    def errors(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the Huber loss of every difference."""
        from torch.nn.functional import huber_loss

        return huber_loss(predicted.float(), target.float(), reduction="none", delta=self.delta)


@attrs.frozen(kw_only=True)
class SmoothL1(Loss):
    """Take errors as they are, but round off the corner at 0 below ``beta``: nearly the median instead of the mean.

    ``e^2 / (2 beta)`` below ``beta``, ``|e| - beta / 2`` above (Girshick 2015; ``torch.nn.SmoothL1Loss``): ``Huber``
    divided by ``beta``.

    Example:
        >>> import torch
        >>> from musubi import SmoothL1
        >>> SmoothL1(beta=0.5).errors(torch.tensor([0.5, 3.0]), torch.zeros(2))
        tensor([0.2500, 2.7500])
    """

    kind: ClassVar[str] = "smooth_l1"
    beta: float = field(default=1.0, check=positive)

    def errors(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the smooth L1 loss of every difference."""
        from torch.nn.functional import smooth_l1_loss

        return smooth_l1_loss(predicted.float(), target.float(), reduction="none", beta=self.beta)
