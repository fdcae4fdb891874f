"""Draw the before/after picture: one row before training, one after, the same prompts and seeds above each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from musubi.core import atomic
from musubi.quickstart.shapes import Pixels

_CELL, _GAP, _LEFT, _TOP = 192, 12, 118, 64


def before_after(
    path: Path,
    *,
    prompts: Sequence[str],
    before: Sequence[Pixels],
    after: Sequence[Pixels],
    example: Pixels,
    score: str,
) -> Path:
    """Write the comparison as a PNG of two rows; ``example`` is one training picture, ``score`` the line beneath."""
    columns = len(prompts) + 1
    width = _LEFT + columns * (_CELL + _GAP)
    height = _TOP + 2 * (_CELL + _GAP) + 44
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (name, pictures) in enumerate({"before": before, "after": after}.items()):
        top = _TOP + row * (_CELL + _GAP)
        draw.text((12, top + _CELL // 2), name, fill="black", font=_font(22), anchor="lm")
        for column, pixels in enumerate(pictures):
            sheet.paste(_enlarged(pixels), (_LEFT + column * (_CELL + _GAP), top))
    right = _LEFT + (columns - 1) * (_CELL + _GAP)
    sheet.paste(_enlarged(example), (right, _TOP + (_CELL + _GAP) // 2))
    for column, prompt in enumerate([*prompts, "one of the training pictures"]):
        _write_wrapped(draw, prompt, (_LEFT + column * (_CELL + _GAP), 8))
    draw.text((_LEFT, height - 34), score, fill="black", font=_font(18))
    with atomic.replacing(path) as temporary:
        sheet.save(temporary, format="PNG")
    return path


def _enlarged(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels).resize((_CELL, _CELL), Image.Resampling.BICUBIC)


def _write_wrapped(draw: ImageDraw.ImageDraw, text: str, corner: tuple[int, int]) -> None:
    lines, line = list[str](), ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and draw.textlength(longer, font=_font(16)) > _CELL:
            lines.append(line)
            longer = word
        line = longer
    for number, content in enumerate([*lines, line]):
        draw.text((corner[0], corner[1] + 18 * number), content, fill="black", font=_font(16))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
