from __future__ import annotations

import subprocess
import sys

import attrs
import pytest

from musubi.architectures.wan.api import WanCache, WanDataset, WanPipeline, WanTrainer
from musubi.architectures.wan.spec import GEOMETRY, Wan
from musubi.core.spec import Spec

WAN = Wan.t2v_14b()
CACHE = WanCache("cache/clips", model=WAN)


def test_a_dataset_has_the_geometry_of_the_model() -> None:
    assert WanDataset.from_folder("clips", resolution=512).geometry == GEOMETRY == WAN.geometry


@pytest.mark.parametrize(
    "spec", [CACHE, WanTrainer(model=WAN, cache=CACHE), WanPipeline(model=WAN)], ids=lambda spec: type(spec).__name__
)
def test_pins_survive_toml(spec: Spec) -> None:
    assert type(spec).from_toml(spec.to_toml()) == spec


@pytest.mark.parametrize("pin", [WanDataset, WanCache, WanTrainer, WanPipeline])
def test_a_pin_narrows_fields_and_adds_nothing(pin: type) -> None:
    (base,) = pin.__bases__
    own = {name for name in vars(pin) if not name.startswith("_")}

    assert {field.name for field in attrs.fields(pin)} == {field.name for field in attrs.fields(base)}
    assert own <= {"model", "cache", "geometry"}


def test_the_pins_load_no_heavy_module() -> None:
    program = (
        "import sys, time\n"
        "start = time.process_time()\n"
        "from musubi import Wan, WanCache, WanDataset, WanPipeline, WanTrainer\n"
        "print(time.process_time() - start)\n"
        "print([n for n in ('torch', 'diffusers', 'transformers', 'av', 'accelerate') if n in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    seconds, loaded = done.stdout.splitlines()

    assert loaded == "[]"
    assert float(seconds) < 0.3
