"""How the channels of an attention head are dealt to the axes of rotary positions: what no shape of a file tells."""

from __future__ import annotations

import json
import re
from contextlib import suppress

from musubi.core.errors import Issue, WeightsError
from musubi.weights.checkpoint import Checkpoint

Axes = tuple[int, int, int]


def rope_axes(checkpoint: Checkpoint, head_dim: int, *, key: str, config_class: str, published: Axes) -> Axes:
    """Return the channels of a head by axis: the file's metadata or config decide, else the published ones.

    Args:
        checkpoint: The denoiser's file.
        head_dim: Channels of a head, which the three must sum to.
        key: The entry of the safetensors metadata, ``family.entry``; in a config it is called ``entry``.
        config_class: Pattern (full match) of class names whose config counts; it may be of something else.
        published: Those of the published models.

    Raises:
        WeightsError: They do not fill a head.
    """
    match _told(checkpoint, key=key, config_class=config_class, published=published):
        case [int(first), int(row), int(column)] if first + row + column == head_dim:
            return first, row, column
        case _:
            message = f"does not tell how {head_dim} channels of a head are dealt to 3 axes"
            hint = f"write them to the safetensors metadata as {key}"
            raise WeightsError("wrong weights for 'dit'", [Issue(checkpoint.label, message, hint)])


def _told(checkpoint: Checkpoint, *, key: str, config_class: str, published: Axes) -> object:
    if key in checkpoint.metadata:
        with suppress(ValueError):
            return json.loads(checkpoint.metadata[key])
        return None
    ours = re.fullmatch(config_class, str(checkpoint.config.get("_class_name", "")))
    return checkpoint.config.get(key.rpartition(".")[2], published) if ours else published
