from __future__ import annotations

import subprocess
import sys

import attrs
import pytest

from musubi import FramePack, FramePackCache, FramePackDataset, FramePackPipeline, FramePackTrainer
from musubi.core.spec import Spec

FRAMEPACK = FramePack.f1()
CACHE = FramePackCache("cache/clips", model=FRAMEPACK)


def test_a_dataset_has_the_geometry_of_the_model() -> None:
    assert FramePackDataset.from_folder("clips", resolution=640).geometry == FRAMEPACK.geometry


@pytest.mark.parametrize(
    "spec",
    [CACHE, FramePackTrainer(model=FRAMEPACK, cache=CACHE), FramePackPipeline(model=FRAMEPACK)],
    ids=lambda spec: type(spec).__name__,
)
def test_pins_survive_toml(spec: Spec) -> None:
    assert type(spec).from_toml(spec.to_toml()) == spec


@pytest.mark.parametrize("pin", [FramePackDataset, FramePackCache, FramePackTrainer, FramePackPipeline])
def test_a_pin_narrows_fields_and_adds_nothing(pin: type) -> None:
    (base,) = pin.__bases__
    own = {name for name in vars(pin) if not name.startswith("_")}

    assert {field.name for field in attrs.fields(pin)} == {field.name for field in attrs.fields(base)}
    assert own <= {"model", "cache", "geometry"}


def test_the_pins_load_no_heavy_module() -> None:
    program = (
        "import sys\n"
        "from musubi import FramePack, FramePackCache, FramePackDataset\n"
        "from musubi import FramePackPipeline, FramePackTrainer\n"
        "print([n for n in ('torch', 'diffusers', 'transformers', 'av', 'accelerate') if n in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
