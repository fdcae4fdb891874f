"""Files of every registered architecture, at its published widths, in the programs that people load them with."""

from __future__ import annotations

import sys
import typing
from collections.abc import Mapping
from functools import cached_property
from typing import Any, cast

import attrs
import diffusers
import pytest
import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from musubi.architecture import Architecture
from musubi.core import kinds
from musubi.networks.check import Check
from musubi.networks.file import LoRAFile
from musubi.networks.fused import part_rows
from musubi.networks.keys import LAYOUTS, LayoutName, flat
from musubi.networks.reading import modules_in
from musubi.networks.targets import matcher
from musubi.networks.weights import LoRAWeights
from tests.contract.kinds import variants

REGISTERED = tuple(kinds.KINDS["architecture"])

ALL, NONE = "all", "none"
TAKEN: Mapping[str, Mapping[LayoutName, tuple[str, str]]] = {
    "hunyuan_video": {
        "reference": (NONE, "160"),
        "comfy": (NONE, ALL),
        "peft": (ALL, ALL),
        "diffusers": (ALL, NONE),
    },
    "wan": {"reference": (ALL, ALL), "comfy": (ALL, ALL), "peft": (ALL, ALL), "diffusers": (ALL, NONE)},
    "flux_kontext": {"reference": (ALL, ALL), "comfy": (ALL, ALL), "peft": (NONE, ALL), "diffusers": (ALL, ALL)},
    "qwen_image": {"reference": (ALL, ALL), "comfy": (ALL, ALL), "peft": (ALL, ALL), "diffusers": (ALL, ALL)},
    "framepack": {"reference": (NONE, "-"), "comfy": (NONE, "-"), "peft": (NONE, "-"), "diffusers": (ALL, "-")},
}
"""What diffusers and ComfyUI take of the default modules; where diffusers is said to take none, its loader is to blame.

Measured with diffusers 0.42; the columns are what the docs show (docs/guides/lora-files.md)."""

OPTIONS: Mapping[str, Mapping[str, object]] = {
    "FluxTransformer2DModel": {"guidance_embeds": True},
    "HunyuanVideoFramepackTransformer3DModel": {"has_image_proj": True, "has_clean_x_embedder": True},
}
"""Where the published model is not what diffusers' class is by default."""


@attrs.define(eq=False, slots=False)
class Published:
    """An architecture at its published size, a rank-1 file for its default modules, and diffusers' own model."""

    spec: Architecture
    file: LoRAFile
    base: nn.Module

    @classmethod
    def of(cls, kind: str) -> Published:
        """Return the variant that diffusers' class is by default: nobody's sizes but its own."""
        for spec in variants(kind).values():
            base = cls._diffusers(spec)
            if cls._sizes(spec, base) == dict(spec.linears()):
                return cls(spec, cls._file(spec), base)
        raise AssertionError(f"no variant of {kind} has the sizes of diffusers' class")

    @staticmethod
    def _diffusers(spec: Architecture) -> nn.Module:
        assert spec.interchange.diffusers is not None
        pipeline = getattr(diffusers, spec.interchange.diffusers)
        hint = typing.get_type_hints(pipeline.__init__)["transformer"]
        transformer = next(iter(typing.get_args(hint)), hint)
        with torch.random.fork_rng(devices=[]), init_empty_weights():
            model = cast(nn.Module, transformer(**OPTIONS.get(transformer.__name__, {})))
        for module in model.modules():
            if isinstance(module, nn.Linear):  # one number for all, so that real adapters can be put beside it
                weight = torch.zeros(()).expand(module.out_features, module.in_features)
                module.weight = nn.Parameter(weight, requires_grad=False)
        return model

    @staticmethod
    def _sizes(spec: Architecture, base: nn.Module) -> dict[str, tuple[int, int]]:
        linears = {name: module for name, module in base.named_modules() if isinstance(module, nn.Linear)}
        return {
            original: (linears[members[0]].in_features, sum(linears[member].out_features for member in members))
            for original, members in spec.keys.groups(linears).items()
        }

    @staticmethod
    def _file(spec: Architecture) -> LoRAFile:
        generator = torch.Generator().manual_seed(0)
        chosen = matcher(spec.layout.adapters)
        modules = {
            name: LoRAWeights(
                torch.randn(1, inputs, generator=generator),
                torch.randn(outputs, 1, generator=generator),
                torch.tensor(0.5),
            )
            for name, (inputs, outputs) in spec.linears().items()
            if chosen(name)
        }
        return LoRAFile(modules=modules, model=spec)

    @cached_property
    def linears(self) -> Mapping[str, nn.Linear]:
        """Diffusers' Linears by its own names."""
        return {name: module for name, module in self.base.named_modules() if isinstance(module, nn.Linear)}

    @cached_property
    def checks(self) -> Mapping[LayoutName, Check]:
        return {layout: self.file.check(layout=layout) for layout in LAYOUTS}

    def in_diffusers(self, layout: LayoutName) -> Mapping[str, Tensor]:
        """Return what diffusers' loader makes of the file; it scales some of the tensors that it is given in place."""
        pipeline = getattr(diffusers, str(self.spec.interchange.diffusers))
        given = {name: tensor.clone() for name, tensor in self.file.tensors(layout).items()}
        found: Mapping[str, Tensor] = pipeline.lora_state_dict(given)
        return found


@pytest.fixture(scope="module", params=REGISTERED)
def published(request: pytest.FixtureRequest) -> Published:
    return Published.of(request.param)


def test_the_matrix_is_as_documented(published: Published, record_property: Any) -> None:
    total = len(published.file.modules)

    def word(check: Check, program: str) -> str:
        verdict = check[program]
        if not verdict.available:
            return "-"
        return {total: ALL, 0: NONE}.get(verdict.taken, str(verdict.taken))

    found = {layout: (word(check, "diffusers"), word(check, "ComfyUI")) for layout, check in published.checks.items()}

    shown = "\n".join(map(str, published.checks.values()))
    sys.stdout.write(f"\n{published.spec.title}, {total} modules\n{shown}\n")  # pytest -s shows it
    record_property("matrix", found)
    assert found == TAKEN[published.spec.kind]


def test_the_default_layout_loads_whole_everywhere(published: Published) -> None:
    check = published.checks[published.spec.interchange.layout]

    others = [verdict for verdict in check.verdicts if verdict.available and verdict.program != "musubi-tuner"]
    assert all(verdict.complete for verdict in others), str(check)
    assert check["diffusers"].available


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_diffusers_takes_does_there_what_it_does_here(published: Published, layout: LayoutName) -> None:
    verdict = published.checks[layout]["diffusers"]
    if not verdict.complete:
        assert verdict.taken == 0  # half of a file would be worse than none
        return

    found = published.in_diffusers(layout)

    assert {name.removeprefix("transformer.").rpartition(".lora_")[0] for name in found} <= published.linears.keys()
    for original, weights in published.file.modules.items():
        x = torch.randn(weights.shape[1], generator=torch.Generator().manual_seed(1))
        names = [part.name for part in published.spec.keys.to_library(original)]
        halves = [[found[f"transformer.{name}.lora_{half}.weight"] for half in "AB"] for name in names]
        theirs = torch.cat([up @ (down @ x) for down, up in halves])
        ours = weights.tensors()["up"] @ (weights.tensors()["down"] @ x) * weights.strength
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)


def test_the_default_file_goes_into_diffusers_own_model(published: Published) -> None:
    pytest.importorskip("peft", reason="diffusers attaches LoRAs through peft")
    state = published.in_diffusers(published.spec.interchange.layout)
    base = cast(Any, published.base)

    base.load_lora_adapter(dict(state), prefix="transformer", adapter_name="ours", low_cpu_mem_usage=True)

    try:
        loaded = {name: parameter for name, parameter in base.named_parameters() if ".lora_" in name}
        parts = {part.name for name in published.file.names for part in published.spec.keys.to_library(name)}
        assert {name.rpartition(".lora_A.")[0] for name in loaded if ".lora_A." in name} == parts
        for name, tensor in state.items():
            mine = loaded[name.removeprefix("transformer.").replace(".weight", ".ours.weight")]
            assert torch.equal(mine, tensor), name
        assert {module.scaling["ours"] for module in base.modules() if hasattr(module, "scaling")} == {1.0}
    finally:
        base.unload_lora()


def test_files_with_the_references_names_are_read_by_original_names(published: Published) -> None:
    roles = {"alpha": "alpha", "down": "lora_down.weight", "up": "lora_up.weight"}
    theirs = {
        f"lora_unet_{flat(name)}.{leaf}": weights.tensors()[role]
        for name, weights in published.file.modules.items()
        for role, leaf in roles.items()
    }

    ours = LoRAFile(modules=modules_in(theirs, {}, where="a file"), naming="flat").bind(published.spec)

    assert ours.names == published.file.names
    assert ours.fingerprint == published.file.fingerprint
    assert published.file.tensors("reference").keys() == theirs.keys()


def test_the_parts_of_fused_modules_have_the_rows_of_diffusers_linears(published: Published) -> None:
    for original, (inputs, outputs) in published.spec.linears().items():
        names = [part.name for part in published.spec.keys.to_library(original)]
        rows = tuple(published.linears[name].out_features for name in names)

        assert part_rows(inputs, outputs, len(names)) == rows, original
