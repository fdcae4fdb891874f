from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import torch

from musubi.networks import fingerprint
from musubi.networks.file import LoRAFile
from musubi.networks.keys import LAYOUTS, LayoutName
from musubi.networks.weights import AdapterWeights, LoRAWeights
from tests.networks.small_spec import SmallSpec
from tests.networks.weighted import KINDS, lora, weights_of

SPEC = SmallSpec()


def _modules(alpha: float = 2.0) -> dict[str, AdapterWeights]:
    return {name: lora(out, width, alpha=alpha, seed=out) for name, (width, out) in SPEC.linears().items()}


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_fingerprint_is_the_same_in_every_layout(layout: LayoutName, alpha: float, tmp_path: Path) -> None:
    file = LoRAFile(modules=_modules(alpha), model=SPEC, metadata={"note": layout})

    again = LoRAFile.load(file.save(tmp_path / "lora.safetensors", layout=layout), SPEC)

    assert again.fingerprint == file.fingerprint == again.metadata[fingerprint.KEY]


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_of_every_kind_counts(kind: str) -> None:
    weights = weights_of(kind)
    before = fingerprint.of_modules({"a.q": weights})

    for field in attrs.fields(type(weights)):
        value = getattr(weights, field.name)
        if isinstance(value, torch.Tensor):
            changed = attrs.evolve(weights, **{field.name: value * 1.001})
            assert fingerprint.of_modules({"a.q": changed}) != before, field.name


@pytest.mark.parametrize(
    "change",
    [
        lambda modules: {f"x.{name}": weights for name, weights in modules.items()},
        lambda modules: dict(list(modules.items())[1:]),
    ],
)
def test_names_count(change: Callable[[dict[str, AdapterWeights]], dict[str, AdapterWeights]]) -> None:
    assert fingerprint.of_modules(change(_modules())) != fingerprint.of_modules(_modules())


def test_spelling_order_and_shape_of_magnitudes_do_not() -> None:
    decomposed = weights_of("dora")
    assert isinstance(decomposed, LoRAWeights)
    assert decomposed.magnitude is not None
    column = attrs.evolve(decomposed, magnitude=decomposed.magnitude[:, None])

    one = fingerprint.of_modules({"a.q": decomposed, "b.k": lora()})

    assert fingerprint.of_modules({"b_k": lora(), "a_q": column}) == one


def test_it_is_written_with_the_precision_of_the_file(tmp_path: Path) -> None:
    file = LoRAFile(modules=_modules(), model=SPEC)

    half = LoRAFile.load(file.save(tmp_path / "half.safetensors", layout="comfy", dtype="bfloat16"), SPEC)

    assert half.fingerprint == half.metadata[fingerprint.KEY] != file.fingerprint


def test_folders_are_cut_from_text_and_from_json() -> None:
    datasets = [{"image_directory": "/home/me/pictures", "note": "a / b", "sizes": [1, 2]}]
    metadata = {
        "ss_sd_model_name": "/home/me/base.safetensors",
        "ss_vae_name": "C:\\models\\vae.pth",
        "ss_datasets": json.dumps(datasets),
        "note": "{not json: /home/me}",
    }

    found = fingerprint.publishable(metadata)

    assert json.loads(found["ss_datasets"]) == [{**datasets[0], "image_directory": "pictures"}]
    assert found["ss_sd_model_name"] == "base.safetensors"
    assert found["ss_vae_name"] == "vae.pth"
    assert found["note"] == metadata["note"]


def test_json_without_folders_stays_letter_by_letter() -> None:
    text = '{"b":1,  "a": "x"}'

    assert fingerprint.publishable({"ss_network_args": text}) == {"ss_network_args": text}
