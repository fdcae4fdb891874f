"""The sizes that FLUX.1 Kontext was trained to be shown."""

from __future__ import annotations

from musubi.architecture import Size

_ABOVE_SQUARE = ((1104, 944), (1184, 880), (1248, 832), (1328, 800), (1392, 752), (1456, 720), (1504, 688), (1568, 672))
PREFERRED: tuple[Size, ...] = (
    *((height, width) for width, height in reversed(_ABOVE_SQUARE)),
    (1024, 1024),
    *_ABOVE_SQUARE,
)
"""17 sizes (width, height) of about a megapixel, the narrowest first."""


def preferred(own: Size) -> Size:
    """Return the preferred size whose aspect ratio is nearest to a picture's; of two equally near, the narrower one.

    Source: ``PREFERRED_KONTEXT_RESOLUTIONS`` of the FLUX.1 Kontext release and its use there.

    Example:
        >>> preferred((832, 480))
        (1328, 800)
    """
    return min((abs(own[0] / own[1] - width / height), width, height) for width, height in PREFERRED)[1:]
