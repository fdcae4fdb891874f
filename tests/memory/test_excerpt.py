from __future__ import annotations

import pytest
import torch
from torch import nn

from musubi import FP8Scaled, GradientCheckpointing
from musubi.architecture import Layout
from musubi.memory.excerpt import excerpt, settle
from musubi.memory.policy import MemoryPolicy, Placement, preparation
from tests.memory import tiny


def placement(layout: Layout) -> Placement:
    return Placement(title="a toy", layout=layout, device=torch.device("cpu"), dtype=torch.float32)


def places(model: nn.Module, layout: Layout, *policies: MemoryPolicy) -> tuple[int, tuple[int, ...]]:
    """Return how many blocks an excerpt has, and which stands for each block."""
    with excerpt(
        model, layout=layout, policies=policies, placement=placement(layout), inner=lambda forward: forward
    ) as found:
        assert sum(len(list(model.get_submodule(path).children())) for path in layout.blocks) == len(found.blocks)
        return len(found.blocks), found.source


def stacks(*sizes: tuple[int, int]) -> tuple[nn.Module, Layout]:
    """Return lists of Linears, (how many, how wide)."""
    model = nn.Module()
    names = [f"list_{i}" for i in range(len(sizes))]
    for name, (count, width) in zip(names, sizes, strict=True):
        model.add_module(name, nn.ModuleList(nn.Linear(width, width) for _ in range(count)))
    return model, Layout(blocks=tuple(names), adapters=())


@pytest.mark.parametrize(
    ("sizes", "source"),
    [
        ([(1, 4)], (0,)),
        ([(2, 4)], (0, 1)),
        ([(5, 4)], (0, 1, 1, 1, 2)),
        ([(3, 4), (4, 8)], (0, 1, 1, 2, 2, 2, 3)),
    ],
)
def test_the_second_block_of_a_kind_stands_for_all_but_the_first_and_the_last(
    sizes: list[tuple[int, int]], source: tuple[int, ...]
) -> None:
    model, layout = stacks(*sizes)

    assert places(model, layout) == (len(set(source)), source)


def test_checkpointed_blocks_are_of_another_kind() -> None:
    model, layout = stacks((8, 4))

    count, source = places(model, layout, GradientCheckpointing(every=2))

    assert count == 4
    assert source[2:7] == (source[2], source[3], source[2], source[3], source[2])
    assert source[2] != source[3]


def test_settling_gives_the_types_of_a_loaded_model_and_freezes_it() -> None:
    with torch.device("meta"):
        model = tiny.transformer()
    model = model.to("meta").requires_grad_(requires_grad=True)
    preparation([FP8Scaled()], keys=tiny.KEYS, layout=tiny.LAYOUT)(model)

    settle(model, keys=tiny.KEYS, dtype=torch.bfloat16, float32=(r"time_embedding\..*",))

    kinds = {name: parameter.dtype for name, parameter in model.named_parameters()}
    assert kinds["patch_embedding.weight"] == torch.bfloat16
    assert kinds["condition_embedder.time_embedder.linear_1.weight"] == torch.float32
    assert kinds["blocks.0.attn1.to_q.weight"] == torch.float8_e4m3fn
    assert kinds["blocks.0.attn1.to_q.scale"] == torch.bfloat16
    assert not any(parameter.requires_grad for parameter in model.parameters())
