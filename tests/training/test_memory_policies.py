"""Where weights and activations live changes no number of a run, whatever is trained, whatever is dropped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from musubi import (
    AdamW,
    BlockSwap,
    Cache,
    DoRA,
    FP8Scaled,
    GradientCheckpointing,
    LoHa,
    LoKr,
    LoRA,
    PriorPreservation,
    Trainer,
)
from musubi.memory.policy import MemoryPolicy
from musubi.networks.network import Network
from musubi.testing.toy import Toy

NETWORKS: tuple[Network, ...] = (
    LoRA(rank=4, dropout=0.2, rank_dropout=0.2, module_dropout=0.2),
    DoRA(rank=4, dropout=0.2, rank_dropout=0.2, module_dropout=0.2),
    LoHa(rank=4, rank_dropout=0.2, module_dropout=0.2),
    LoKr(rank=2, factor=4, rank_dropout=0.2, module_dropout=0.2),
)
PLACES: tuple[tuple[MemoryPolicy, ...], ...] = (
    (GradientCheckpointing(),),
    (GradientCheckpointing(every=2), BlockSwap(blocks=2)),
)


def tensors_of(
    cache: Cache[Toy], output: Path, network: Network, *policies: MemoryPolicy, precision: str
) -> dict[str, torch.Tensor]:
    """Train over a toy of four blocks, with a prior that needs the base model in every step."""
    trainer = Trainer(
        model=Toy(depth=4),
        cache=cache,
        steps=3,
        output=output,
        network=network,
        optimizer=AdamW(lr=1e-2),
        accumulate=2,
        precision=precision,  # type: ignore[arg-type]
        prior=PriorPreservation(cache=cache, weight=0.5),
        memory=policies,
        device="cpu",
    )
    return dict(trainer.run(progress=False).lora.tensors())


@pytest.mark.parametrize("network", NETWORKS, ids=lambda spec: spec.kind)
@pytest.mark.parametrize(("base", "precision"), [((), "float32"), ((FP8Scaled(),), "bfloat16")], ids=["plain", "fp8"])
def test_a_block_that_is_computed_again_or_swapped_drops_and_learns_the_same(
    cache: Cache[Toy], tmp_path: Path, network: Network, base: tuple[MemoryPolicy, ...], precision: str
) -> None:
    plain = tensors_of(cache, tmp_path / "plain", network, *base, precision=precision)

    for index, policies in enumerate(PLACES):
        moved = tensors_of(cache, tmp_path / f"{index}", network, *base, *policies, precision=precision)
        assert plain.keys() == moved.keys()
        assert all(torch.equal(plain[name], moved[name]) for name in plain)
