from __future__ import annotations

import json
from pathlib import Path

from musubi.cache.cache import Cache
from musubi.data.dataset import Dataset
from musubi.testing.toy import Toy
from tests.data.files import picture


def test_items_buckets_stages_and_size_are_told(tmp_path: Path, dataset: Dataset) -> None:
    summary = Cache(tmp_path / "cache", model=Toy()).build(dataset, progress=False).summary()

    assert "items: 6\n" in summary
    assert "64x64: 2, 64x64x1: 1, 64x64x5: 1, 64x64x9: 1, 80x48: 1" in summary
    assert "stages: latents, text\n" in summary
    assert "mask" not in summary


def test_what_is_held_out_masked_and_worth_a_note_is_counted(tmp_path: Path, media: Path) -> None:
    picture(media / "hole.png", size=(64, 64), caption=None)
    rows = [{"image_path": f"{name}.png", "caption": name} for name in ("cat", "cow", "fox")]
    rows[0]["mask_path"] = "hole.png"
    (media / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    dataset = Dataset.from_jsonl(media / "rows.jsonl", resolution=128).with_validation(share=0.3)

    summary = Cache(tmp_path / "cache", model=Toy()).build(dataset, progress=False).summary()

    assert "items: 3: 2 for training, 1 for validation" in summary
    assert "stages: latents, text, mask" in summary
    assert "with a mask: 1" in summary
    assert "notes: enlarged: 3" in summary
