"""At which size pictures to change are shown to the VAE and to the language model, as the authors' pipelines do it."""

from __future__ import annotations

import math

from musubi.architecture import Size

_STEP = 32


def official(own: Size, area: int) -> Size:
    """Return the (width, height) of a picture's aspect ratio at about an area in pixels; sides in 32 pixels.

    Source: ``calculate_dimensions`` of diffusers' ``QwenImageEditPlusPipeline``; of threads a side is at least 32.

    Example:
        >>> official((832, 480), 1024 * 1024)
        (1344, 768)
    """
    ratio = own[0] / own[1]
    width = math.sqrt(area * ratio)
    return max(_STEP, round(width / _STEP) * _STEP), max(_STEP, round(width / ratio / _STEP) * _STEP)
