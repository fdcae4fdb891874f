"""Whether a checkpoint is what the task asks for."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING

from musubi.architectures.wan.detect import Description, Kind, describe
from musubi.architectures.wan.facts import DitFacts
from musubi.architectures.wan.spec import PUBLISHED, Published
from musubi.core.errors import Issue, WeightsError

if TYPE_CHECKING:
    from musubi.weights.checkpoint import Checkpoint

logger = logging.getLogger(__name__)

_WANTED: Mapping[Kind, str] = MappingProxyType(
    {"dit": "a Wan transformer", "vae": "the Wan 2.1 VAE", "umt5": "the umT5 encoder"}
)
_OTHER_WIDTHS = (3072,)
"""Widths of published Wan transformers that no task offers yet (TI2V-5B)."""


@contextmanager
def legible(checkpoint: Checkpoint) -> Generator[None]:
    """Refuse a checkpoint whose sizes cannot be read, because tensors are missing or of another form."""
    try:
        yield
    except (KeyError, IndexError, ValueError, TypeError, ZeroDivisionError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else "has tensors of unexpected shapes"
        problem = Issue(
            checkpoint.label, f"{what}: its sizes cannot be told", "download it again, or give another file"
        )
        raise WeightsError("incomplete weights", [problem]) from error


def expect(checkpoint: Checkpoint, kind: Kind, *, component: str) -> Description:
    """Return what the checkpoint is, if it is what this component needs.

    Raises:
        WeightsError: It is something else, which the message names.
    """
    with legible(checkpoint):
        found = describe(checkpoint)
    if found.kind != kind:
        problem = Issue(checkpoint.label, f"is {found.title}, not {_WANTED[kind]}", f"choose it with {component}=...")
        raise WeightsError(f"wrong weights for {component!r}", [problem])
    return found


def expect_variant(checkpoint: Checkpoint, found: Description, facts: DitFacts, wanted: Published, task: str) -> None:
    """Refuse a transformer of another variant or published size than the task's; other widths are the user's own.

    Raises:
        WeightsError: Names the task, the file and what the file is.
    """
    fits = facts.in_channels == facts.out_channels == 16 and facts.image_dim is None and not facts.image_keys
    sizes = {published.dim: published.title for published in PUBLISHED.values()}
    if not fits or (facts.dim in (*sizes, *_OTHER_WIDTHS) and facts.dim != wanted.dim):
        what = f"{sizes[facts.dim]} (width {facts.dim})" if fits and facts.dim in sizes else found.title
        other = next((name for name, published in PUBLISHED.items() if fits and published.dim == facts.dim), None)
        hint = (
            f"use Wan.{other}()" if other else "this variant is not supported; supported are Wan 2.1 T2V 1.3B and 14B"
        )
        problem = Issue(checkpoint.label, f"is {what}, but the task {task!r} needs {wanted.title}", hint)
        raise WeightsError("wrong weights for 'dit'", [problem])
    if facts.dim != wanted.dim:
        logger.debug("%s has width %d, which no published model has; taken as %s", checkpoint.label, facts.dim, task)
