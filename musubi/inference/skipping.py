"""Asking a network without some of its blocks: they hand on what they get."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
from torch import Tensor, nn

from musubi.core.errors import ConfigError, Issue
from musubi.memory.forwards import Forward, wrapped


@attrs.define
class Skipping:
    """Which blocks of a model are passed by at the moment; one object serves a model at a time."""

    without: tuple[int, ...] = ()

    @contextmanager
    def watching(self, blocks: Sequence[nn.Module]) -> Generator[None]:
        """Let these blocks look at ``without`` for the length of a ``with``; hooks around them run as ever."""
        numbers = {id(block): index for index, block in enumerate(blocks)}
        with wrapped(blocks, lambda block, forward: self._instead(numbers[id(block)], forward)):
            yield

    def _instead(self, index: int, forward: Forward) -> Forward:
        def run(*args: Any, **kwargs: Any) -> Any:
            if index in self.without:
                return args[0] if args else next(iter(kwargs.values()))
            result = forward(*args, **kwargs)
            if not isinstance(result, Tensor):
                message = "this model's blocks carry several tensors: none can be passed by"
                raise ConfigError("guidance", [Issue("blocks", message, "use a rule without blocks")])
            return result

        return run
