"""Any two policies together change no bit of a real model's training and generating: the table in the reference."""

from __future__ import annotations

from collections.abc import Generator
from itertools import combinations
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from musubi import ActivationOffload, BlockSwap, Compile, FP8Scaled, GradientCheckpointing, Int8Scaled
from musubi.memory.policy import FitContext, MemoryPolicy, arrange, placed
from tests.memory import tiny
from tests.memory.compilation import forgetting, quietly

pytestmark = quietly

CONTEXT = FitContext(title="a toy", layout=tiny.LAYOUT, blocks=tiny.LAYERS)
POLICIES: tuple[MemoryPolicy, ...] = (
    FP8Scaled(),
    Int8Scaled(),
    Compile(backend="eager"),
    GradientCheckpointing(),
    GradientCheckpointing(every=2, keep=("attention", "matmul")),
    ActivationOffload(min_bytes=64),
    BlockSwap(blocks=4),
)
PAIRS = [pair for pair in combinations(POLICIES, 2) if not (pair[0].changes_weights and pair[1].changes_weights)]


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Generator[None]:
    with forgetting():
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, nn.Module]:
    """Return the same model as it is and in each quantised form, by the policy's kind."""

    def load(*policies: MemoryPolicy) -> nn.Module:
        folder: Path = tmp_path_factory.mktemp("model")
        return tiny.loaded(folder, policies).requires_grad_(requires_grad=False)

    return {"": load(), **{policy.kind: load(policy) for policy in POLICIES if policy.changes_weights}}


@pytest.mark.parametrize(
    "pair",
    [pair for pair in PAIRS if pair[0].kind != pair[1].kind],
    ids=lambda pair: " + ".join(type(policy).__name__ + ("*" if "keep=('" in repr(policy) else "") for policy in pair),
)
def test_two_policies_together_change_no_bit(
    pair: tuple[MemoryPolicy, MemoryPolicy], models: dict[str, nn.Module]
) -> None:
    model = models[next((policy.kind for policy in pair if policy.changes_weights), "")]
    trained = tiny.adapters(model)
    before = tiny.snapshot(model)

    with trained.attached(model):
        expected, picture = tiny.step(model, trained), tiny.generation(model)
        with placed(model, arrange(pair[::-1], CONTEXT), tiny.PLACEMENT):
            found: list[list[Tensor]] = [tiny.step(model, trained) for _ in range(2)]
            pictured = tiny.generation(model)

    assert all(tiny.equal(step, expected) for step in found)
    assert torch.equal(pictured, picture)
    assert tiny.unchanged(model, before)


def test_all_of_them_together_change_no_bit(models: dict[str, nn.Module]) -> None:
    policies = [policy for policy in POLICIES if policy.kind != "fp8_scaled" and policy != GradientCheckpointing()]
    model = models["int8_scaled"]
    trained = tiny.adapters(model)

    with trained.attached(model):
        expected, picture = tiny.step(model, trained), tiny.generation(model)
        with placed(model, arrange(policies, CONTEXT), tiny.PLACEMENT):
            for _ in range(2):
                assert tiny.equal(tiny.step(model, trained), expected)
                assert torch.equal(tiny.generation(model), picture)
