"""A loaded model as the class it must be of."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def checked(model: nn.Module, kind: type[M]) -> M:
    """Return the model if it is of a class, for those who were handed it by name.

    Raises:
        TypeError: It is of another class.
    """
    if not isinstance(model, kind):
        raise TypeError(f"a {kind.__name__} is needed, got a {type(model).__name__}")
    return model
