"""Original names at the boundary, the library's inside, and the way between them without loss."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from musubi.batch import Batch
from tests.contract.conftest import CPU, Running


def parameters(running: Running) -> dict[str, nn.Parameter]:
    return dict(running.model.named_parameters())


def originals(running: Running) -> dict[str, Tensor]:
    """Return all tensors under original names, fused where the checkpoint has them fused."""
    found: dict[str, dict[int, Tensor]] = {}
    for name, parameter in parameters(running).items():
        original, place = running.spec.keys.to_original(name)
        found.setdefault(original, {})[place.part] = parameter
    return {n: torch.cat([p[i] for i in sorted(p)]) if len(p) > 1 else p[0] for n, p in found.items()}


def test_every_parameter_goes_to_its_original_name_and_back(running: Running) -> None:
    keys = running.spec.keys

    for name in parameters(running):
        original, place = keys.to_original(name)

        assert keys.to_library(original)[place.part] == place
        assert place.name == name


def test_no_original_is_left_in_pieces(running: Running) -> None:
    keys, names = running.spec.keys, set(parameters(running))
    wanted = {part.name for name in originals(running) for part in keys.to_library(name)}

    assert wanted == names


def test_blocks_are_module_lists_of_the_model(running: Running) -> None:
    for path in running.spec.layout.blocks:
        blocks = running.model.get_submodule(path)

        assert isinstance(blocks, nn.ModuleList)
        assert len(blocks) > 0


def linears(running: Running) -> set[str]:
    modules = (n for n, m in running.model.named_modules() if isinstance(m, nn.Linear))
    return set(running.spec.keys.groups(modules))


def test_every_adapter_pattern_matches_linears_of_the_blocks(running: Running) -> None:
    for pattern in running.spec.layout.adapters:
        assert any(re.fullmatch(pattern, name) for name in linears(running)), pattern


def test_quantising_reaches_linears_and_leaves_some_tensors_alone(running: Running) -> None:
    layout = running.spec.layout
    reached = {
        name
        for name in linears(running)
        if any(re.fullmatch(p, name) for p in layout.quantise) and not any(re.fullmatch(p, name) for p in layout.keep)
    }

    assert reached or not layout.quantise
    assert reached < {name.rpartition(".")[0] for name in originals(running)}


def test_a_hook_sees_every_original_tensor_once_under_its_name_and_shape(running: Running) -> None:
    seen: list[tuple[str, torch.Size]] = []

    def watch(name: str, tensor: Tensor) -> Tensor:
        seen.append((name, tensor.shape))
        return tensor

    model = running.denoiser.load(running.spec.experts[0], device=CPU, dtype=torch.float32, on_weight=watch)

    assert sorted(seen) == sorted((name, tensor.shape) for name, tensor in originals(running).items())
    assert all(torch.equal(p, parameters(running)[n]) for n, p in model.named_parameters())


def test_a_hook_changes_what_is_stored(running: Running, noisy: tuple[Tensor, Tensor, Batch]) -> None:
    chosen = next(
        n for n in originals(running) if n.endswith(".weight") and n.removesuffix(".weight") in linears(running)
    )

    def double(name: str, tensor: Tensor) -> Tensor | Mapping[str, Tensor]:
        return {"weight": 2 * tensor} if name == chosen else tensor

    model = running.denoiser.load(running.spec.experts[0], device=CPU, dtype=torch.float32, on_weight=double)

    for part in running.spec.keys.to_library(chosen):
        assert torch.equal(model.get_parameter(part.name), 2 * parameters(running)[part.name])
    assert not torch.equal(running.velocity(model, *noisy), running.velocity(running.model, *noisy))


def test_structure_is_changed_before_there_are_weights(running: Running) -> None:
    prepared: list[bool] = []

    def prepare(model: nn.Module) -> None:
        prepared.extend(p.is_meta for p in model.parameters())

    running.denoiser.load(running.spec.experts[0], device=CPU, dtype=torch.float32, prepare=prepare)

    assert prepared
    assert all(prepared)
