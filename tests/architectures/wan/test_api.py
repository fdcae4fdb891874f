from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from musubi import ConfigError, HunyuanVideo, Wan, WanCache, WanDataset, WanPipeline

OTHER: Any = HunyuanVideo.t2v()


def test_the_pins_are_for_wan_alone(tmp_path: Path) -> None:
    for make in (lambda: WanCache(tmp_path, model=OTHER), lambda: WanPipeline(model=OTHER)):
        with pytest.raises(ConfigError, match="model"):
            make()


def test_a_dataset_has_wans_geometry_until_a_cache_gives_it_the_models_own() -> None:
    data = WanDataset.from_folder("clips", resolution=(832, 480), frames=(1, 25))

    assert data.geometry == Wan.t2v_14b().geometry
    assert data.with_geometry(Wan.ti2v_5b().geometry).geometry.fps == 24
