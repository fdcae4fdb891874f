"""Every registered family has a dataset, a cache, a trainer and a pipeline that add types and nothing else."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import attrs
import pytest

import musubi
from musubi.core import kinds
from tests.contract.kinds import class_of, variants

FAMILIES = {kind: class_of(kind).__name__ for kind in kinds.KINDS["architecture"]}
NOUNS = ("Dataset", "Cache", "Trainer", "Pipeline")
each_family = pytest.mark.parametrize(("kind", "name"), FAMILIES.items(), ids=FAMILIES)


def _pins(name: str) -> dict[str, Any]:
    return {noun: getattr(musubi, f"{name}{noun}") for noun in NOUNS}


@each_family
def test_a_dataset_has_the_geometry_of_the_model(kind: str, name: str) -> None:
    for spec in variants(kind).values():
        assert _pins(name)["Dataset"].from_folder("folder", resolution=512).geometry == spec.geometry


@each_family
def test_pins_survive_toml(kind: str, name: str) -> None:
    model, pins = next(iter(variants(kind).values())), _pins(name)
    cache = pins["Cache"]("cache/folder", model=model)

    for spec in (cache, pins["Trainer"](model=model, cache=cache), pins["Pipeline"](model=model)):
        assert type(spec).from_toml(spec.to_toml()) == spec


@each_family
def test_a_pin_narrows_fields_and_adds_nothing(kind: str, name: str) -> None:
    for pin in _pins(name).values():
        (base,) = pin.__bases__
        own = {member for member in vars(pin) if not member.startswith("_")}

        assert {field.name for field in attrs.fields(pin)} == {field.name for field in attrs.fields(base)}
        assert own <= {"model", "cache", "geometry"}


def test_no_pin_loads_a_heavy_module() -> None:
    names = [name for family in FAMILIES.values() for name in (family, *(f"{family}{noun}" for noun in NOUNS))]
    program = (
        "import sys\n"
        f"from musubi import {', '.join(names)}\n"
        "print([n for n in ('torch', 'diffusers', 'transformers', 'av', 'accelerate') if n in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
