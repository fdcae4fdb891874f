"""Whether a checkpoint is what the task asks for."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING

from musubi.architectures.wan.detect import Description, Kind, describe
from musubi.architectures.wan.facts import DitFacts
from musubi.architectures.wan.tasks import PUBLISHED, Published
from musubi.core.errors import Issue, WeightsError

if TYPE_CHECKING:
    from musubi.weights.checkpoint import Checkpoint

logger = logging.getLogger(__name__)

_WANTED: Mapping[Kind, str] = MappingProxyType(
    {
        "dit": "a Wan transformer",
        "vae": "the Wan 2.1 VAE",
        "vae22": "the Wan 2.2 VAE",
        "umt5": "the umT5 encoder",
        "clip": "the CLIP image encoder",
    }
)


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
    """Refuse a transformer of another form or published width than the task's; other widths are the user's own.

    Raises:
        WeightsError: Names the task, the file and what the file is.
    """
    widths = {published.dim for published in PUBLISHED.values()}
    fits = facts.has_form(wanted.form)
    if not fits or (facts.dim in widths and facts.dim != wanted.dim):
        problem = Issue(checkpoint.label, f"is {found.title}, but {wanted.title} is needed", _others(facts))
        raise WeightsError(f"wrong weights for the task {task!r}", [problem])
    if facts.dim != wanted.dim:
        logger.debug("%s has width %d, which no published model has; taken as %s", checkpoint.label, facts.dim, task)


def _others(facts: DitFacts) -> str:
    """Return which tasks a transformer is for, those of its width if there are any."""
    alike = {name: published for name, published in PUBLISHED.items() if facts.has_form(published.form)}
    names = [name for name, published in alike.items() if published.dim == facts.dim] or [*alike]
    if not names:
        return "this variant is not supported; give another file"
    return f"it is for {' or '.join(f'Wan.{name}()' for name in names)}"
