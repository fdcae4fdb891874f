"""What holds for transformers of any family whose files are of 8 bits already."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from musubi.memory.as_stored import AsStored
from musubi.memory.quant_linear import QuantLinear
from musubi.memory.quantise import quantises
from musubi.weights.checkpoint import open_checkpoint
from musubi.weights.stored import stored_weights
from tests.architectures.families import FAMILIES, Family

each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
each_form = pytest.mark.parametrize("form", ["none", "tensor", "row"])
each_layout = pytest.mark.parametrize("layout", ["original", "library"])


@attrs.frozen
class Twins:
    """The same weights in two files: of 8 bits with companions, and what they mean in float32."""

    narrow: Path
    wide: Path

    @classmethod
    def of(cls, family: Family, form: str, layout: str, folder: Path) -> Twins:
        narrow: dict[str, Tensor] = {}
        wide: dict[str, Tensor] = {}
        for name, tensor in family.checkpoint().items():
            if tensor.ndim != 2 or not name.endswith(".weight"):
                continue
            scale = {"none": None, "tensor": tensor.abs().max() / 448, "row": tensor.abs().amax(1, keepdim=True) / 448}[
                form
            ]
            stored = (tensor if scale is None else tensor / scale).to(torch.float8_e4m3fn)
            narrow[name], wide[name] = stored, stored.float() * (1 if scale is None else scale)
            if scale is not None:
                narrow |= {f"{name[:-7]}.scale_weight": scale, f"{name[:-7]}.scale_input": torch.ones(())}
        narrow["scaled_fp8"] = torch.zeros(2).to(torch.float8_e4m3fn)
        return cls(*(_written(family, changes, layout, folder) for changes in (narrow, wide)))

    def load(self, family: Family) -> tuple[nn.Module, nn.Module]:
        """Load both, the first with its matrices kept as they are."""
        with open_checkpoint(self.narrow) as checkpoint:
            kept = AsStored(stored=stored_weights(checkpoint, family.spec.keys))
        prepared = family.load(
            self.narrow, prepare=lambda model: kept.prepare(model, family.spec.keys, family.spec.layout)
        )
        return prepared, family.load(self.wide)


def _written(family: Family, changes: dict[str, Tensor], layout: str, folder: Path) -> Path:
    place = folder / str(len(list(folder.iterdir())))
    place.mkdir()
    path = family.write(family.stem, place, changes=changes)
    if layout == "original":
        return path
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    rows = {name: len(p) for name, p in family.load(path).named_parameters() if p.ndim}
    tensors = load_file(path)
    path.unlink()
    save_file(_in_library_names(family, tensors, rows), path, metadata=metadata)
    return path


def _in_library_names(family: Family, tensors: Mapping[str, Tensor], rows: Mapping[str, int]) -> dict[str, Tensor]:
    """Return the tensors as diffusers names, divides and turns them."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        parts = [part.name for part in family.spec.keys.to_library(name)]
        per_row = tensor.ndim > 0 and leaf in {"weight", "bias", "scale_weight"}
        turned = tensor
        if per_row and any(re.fullmatch(pattern, module) for pattern in family.spec.interchange.swapped):
            turned = torch.cat(tensor.chunk(2)[::-1])
        heights = [rows[f"{part.rpartition('.')[0]}.weight"] for part in parts] if per_row and len(parts) > 1 else []
        divided = turned.split(heights) if heights else [turned] * len(parts)
        found |= {part: rows_of.clone() for part, rows_of in zip(parts, divided, strict=True)}
    return found


@each_family
@each_form
@each_layout
def test_a_file_of_8_bits_answers_as_what_it_means(family: Family, form: str, layout: str, tmp_path: Path) -> None:
    kept, wide = Twins.of(family, form, layout, tmp_path).load(family)

    with torch.no_grad():
        answers = [family.predict(model, family.inputs(family.stem)) for model in (kept, wide)]

    torch.testing.assert_close(*answers, atol=1e-4, rtol=1e-4)
    quantised = {name for name, module in kept.named_modules() if isinstance(module, QuantLinear)}
    linears = {name for name, module in wide.named_modules() if isinstance(module, nn.Linear)}
    originals = {name: family.spec.keys.to_original(name)[0] for name in linears}
    assert quantised == {n for n, original in originals.items() if quantises(f"{original}.weight", family.spec.layout)}
    assert quantised


@each_family
@each_form
@each_layout
def test_without_places_for_8_bits_the_numbers_are_what_they_mean(
    family: Family, form: str, layout: str, tmp_path: Path
) -> None:
    twins = Twins.of(family, form, layout, tmp_path)

    lifted, wide = (family.load(path).state_dict() for path in (twins.narrow, twins.wide))

    assert lifted.keys() == wide.keys()
    assert all(torch.equal(tensor, wide[name]) for name, tensor in lifted.items())
