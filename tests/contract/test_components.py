"""What an architecture says of its codec's components, held against the modules that are loaded."""

from __future__ import annotations

import re

from torch import nn

from musubi.memory.policy import blocks_of
from tests.contract.conftest import Running


def test_components_are_those_of_the_stages(running: Running) -> None:
    used = {name for stage in running.spec.stages for name in stage.components}

    assert {component.name for component in running.spec.components} <= used


def test_blocks_exist_and_all_their_linears_are_quantised_but_those_that_are_kept(running: Running) -> None:
    for component in running.spec.components:
        model, layout = running.models[component.name], component.layout
        if not layout.blocks:
            continue
        inside = {id(linear) for block in blocks_of(model, layout) for linear in block.modules()}
        linears = {
            component.keys.to_original(name)[0]: id(module) in inside
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear)
        }
        assert any(linears.values())
        for name, is_inside in linears.items():
            picked = any(re.fullmatch(pattern, name) for pattern in layout.quantise)
            kept = any(re.fullmatch(pattern, name) for pattern in layout.keep)
            assert picked == is_inside or kept, name


def test_tables_are_embeddings(running: Running) -> None:
    for component in running.spec.components:
        for name in component.tables:
            assert isinstance(running.models[component.name].get_submodule(name), nn.Embedding)
