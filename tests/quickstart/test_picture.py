from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from musubi.quickstart.picture import before_after


def test_before_lies_above_after_and_the_example_beside_them(tmp_path: Path) -> None:
    red, blue, green = (
        np.full((64, 64, 3), colour, dtype=np.uint8) for colour in ((255, 0, 0), (0, 0, 255), (0, 255, 0))
    )

    path = before_after(
        tmp_path / "sheet.png", prompts=["one", "two"], before=[red, red], after=[blue, blue], example=green, score="s"
    )

    with Image.open(path) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    rows = {
        name: np.argwhere((pixels == colour).all(axis=2))
        for name, colour in {"red": (255, 0, 0), "blue": (0, 0, 255), "green": (0, 255, 0)}.items()
    }
    assert rows["red"][:, 0].max() < rows["blue"][:, 0].min()
    assert rows["green"][:, 1].min() > max(rows["red"][:, 1].max(), rows["blue"][:, 1].max())
