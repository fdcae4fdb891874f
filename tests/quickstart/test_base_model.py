from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

import musubi.quickstart
from musubi import Euler, WanPipeline
from musubi.quickstart import shapes
from musubi.quickstart.base_model import demo_model
from musubi.quickstart.classifier import load_classifier, share_recognised

BASE = Path(musubi.quickstart.__file__).parent / "base"


def test_the_embedded_base_is_at_most_eight_megabytes() -> None:
    assert sum(path.stat().st_size for path in BASE.rglob("*") if path.is_file()) <= 8_000_000


def test_the_embedded_base_says_how_it_was_trained_and_holds_no_path() -> None:
    config = json.loads((BASE / "config.json").read_text(encoding="utf-8"))

    assert config["training"]["steps"]
    assert "/work" not in json.dumps(config)
    assert "/root" not in json.dumps(config)


def test_the_classifier_knows_the_shapes_it_is_to_score() -> None:
    scenes = [s for s in shapes.scenes() if s.size == "big" and s.colour == "red"][:33]
    drawn = np.stack([shapes.picture(scene) for scene in scenes])

    assert share_recognised(load_classifier(), drawn, [scene.shape for scene in scenes]) > 0.95


def test_the_base_draws_what_the_caption_says() -> None:
    things = ["house", "boat", "mushroom", "face", "star", "cat", "heart"]
    pipeline = WanPipeline(model=demo_model()).with_sampler(Euler(shift=3.0))
    torch.set_num_threads(1)

    with pipeline.open() as session:
        drawn = [
            session.generate(
                f"a big red {thing} on a blue background", size=(64, 64), frames=1, steps=20, guidance=4.0, negative=""
            ).to_numpy()
            for thing in things
        ]

    assert share_recognised(load_classifier(), np.stack(drawn), things) >= 5 / 7
