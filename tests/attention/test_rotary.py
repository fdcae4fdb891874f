from __future__ import annotations

import pytest
import torch
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_qwenimage import apply_rotary_emb_qwen
from torch import Tensor

from musubi.attention.rotary import followed_by_text, rotated, turns

TOKENS, HEADS, CHANNELS = 6, 3, 16


def _drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _tables() -> tuple[Tensor, Tensor]:
    phases = _drawn(TOKENS, CHANNELS // 2).repeat_interleave(2, dim=1)
    return phases.cos(), phases.sin()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_numbers_are_diffusers_bit_for_bit(dtype: torch.dtype) -> None:
    heads, (cos, sin) = _drawn(2, TOKENS, HEADS, CHANNELS).to(dtype), _tables()

    found = rotated(heads, turns(cos, sin))

    real: object = apply_rotary_emb(heads, (cos, sin), sequence_dim=1)  # type: ignore[arg-type]
    waves = torch.complex(cos[:, ::2], sin[:, ::2])
    paired: object = apply_rotary_emb_qwen(heads, waves, use_real=False)
    assert isinstance(real, Tensor)
    assert isinstance(paired, Tensor)
    assert torch.equal(found, real)
    assert torch.equal(found, paired)


def test_a_compiled_block_turns_bit_for_bit_alike() -> None:
    heads, turn = _drawn(2, TOKENS, HEADS, CHANNELS).requires_grad_(), turns(*_tables())
    target = _drawn(2, TOKENS, HEADS, CHANNELS) + 1

    plain = rotated(heads, turn)
    (expected,) = torch.autograd.grad(plain, heads, target)
    compiled = torch.compile(rotated, backend="aot_eager", fullgraph=True)(heads, turn)
    (found,) = torch.autograd.grad(compiled, heads, target)

    assert torch.equal(compiled, plain)
    assert torch.equal(found, expected)


def test_every_sample_can_have_places_of_its_own() -> None:
    heads, (cos, sin) = _drawn(2, TOKENS, HEADS, CHANNELS), _tables()
    own = turns(torch.stack([cos, cos.flip(0)]), torch.stack([sin, sin.flip(0)]))

    found = rotated(heads, own)

    assert torch.equal(found[:1], rotated(heads[:1], turns(cos, sin)))
    assert torch.equal(found[1:], rotated(heads[1:], turns(cos.flip(0), sin.flip(0))))


def test_text_after_the_picture_is_not_turned() -> None:
    heads, turn = _drawn(2, TOKENS + 4, HEADS, CHANNELS), turns(*_tables())

    found = rotated(heads, followed_by_text(turn, 4))

    assert torch.equal(found[:, TOKENS:], heads[:, TOKENS:])
    assert torch.equal(found[:, :TOKENS], rotated(heads[:, :TOKENS], turn))
