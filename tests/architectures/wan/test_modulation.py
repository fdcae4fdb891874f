"""What the time does to a block is one set of vectors for each sample, not for each token.

The reference's Wan 2.2 makes a set for each token, although all tokens of a sample have one noise level, unless told
``--force_v2_1_time_embedding``.
"""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from musubi import GradientCheckpointing
from musubi.architecture import Expert
from musubi.architectures.wan.denoiser import WanConditions, pad_text
from musubi.architectures.wan.spec import Wan
from musubi.memory.policy import Placement

SIGMAS = torch.tensor([0.3, 0.9])
SET = 6 * 64 * 4
"""Bytes of a shift, a scale and a gate for attention and for the feed-forward: six float32 vectors of the width."""


@pytest.fixture(scope="module")
def model(tiny: Wan) -> WanTransformer3DModel:
    return tiny.denoiser().load(Expert(), device=torch.device("cpu"), dtype=torch.bfloat16)


def _velocity(tiny: Wan, model: WanTransformer3DModel, frames: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(SIGMAS), 16, frames, 4, 8, generator=generator).requires_grad_()
    conditions = WanConditions(text=pad_text([torch.randn(3, 32, generator=generator) for _ in SIGMAS]))
    return tiny.denoiser().velocity(model, x, SIGMAS, conditions)


@pytest.mark.parametrize("frames", [1, 5])
def test_every_block_gets_one_set_of_vectors_for_each_sample(
    frames: int, tiny: Wan, model: WanTransformer3DModel
) -> None:
    seen: list[Tensor] = []

    with ExitStack() as stack:
        for block in model.blocks:
            hook = block.register_forward_pre_hook(lambda _, args: seen.append(args[2]))
            stack.callback(hook.remove)
        _velocity(tiny, model, frames)

    assert len(seen) == len(model.blocks)
    assert all(modulation.shape == (len(SIGMAS), 6, 64) for modulation in seen)
    assert all(modulation.dtype == torch.float32 for modulation in seen)
    assert {modulation.data_ptr() for modulation in seen} == {seen[0].data_ptr()}
    assert not torch.equal(seen[0][0], seen[0][1])


@pytest.mark.parametrize("frames", [1, 5])
def test_backward_keeps_one_set_for_all_blocks_however_many_tokens_there_are(
    frames: int, tiny: Wan, model: WanTransformer3DModel
) -> None:
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    place = Placement(title="a toy", layout=tiny.layout, device=torch.device("cpu"), dtype=torch.bfloat16)
    with GradientCheckpointing().place(model, place), saved_tensors_hooks(pack, lambda tensor: tensor):
        _velocity(tiny, model, frames)

    # Nothing else has six of something: there are 8 or 40 tokens of the picture and 512 of the text.
    modulations = [tensor for tensor in kept.values() if tensor.shape[-2:] == (6, 64)]
    assert [tensor.untyped_storage().nbytes() for tensor in modulations] == [len(SIGMAS) * SET]
