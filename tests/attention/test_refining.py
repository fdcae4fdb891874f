from __future__ import annotations

from typing import Any

import torch
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTokenRefiner
from torch import Tensor
from torch.testing import assert_close

from musubi.attention.refining import refined
from musubi.attention.streams import TextAttention, equip
from tests.attention.squares import Squares

TIMES = torch.tensor([431.0, 760.0])


def _refiner() -> Any:
    torch.manual_seed(0)
    return HunyuanVideoTokenRefiner(in_channels=24, num_attention_heads=2, attention_head_dim=16, num_layers=2)


def _equipped() -> Any:
    refiner = _refiner()
    equip(refiner.token_refiner.refiner_blocks, TextAttention())
    return refiner


def _text(length: int = 7) -> Tensor:
    return torch.randn(2, length, 24, generator=torch.Generator().manual_seed(1))


def test_the_text_is_diffusers_but_for_padding() -> None:
    text, mask = _text(), torch.arange(7)[None] < torch.tensor([[7], [4]])

    expected = _refiner()(text, TIMES, mask)
    found = refined(_equipped(), text, TIMES, (7, 4))

    assert_close(found[0], expected[0], rtol=0, atol=1e-6)
    assert_close(found[1, :4], expected[1, :4], rtol=0, atol=1e-6)


def test_a_text_does_not_depend_on_its_padding() -> None:
    text, spoilt, refiner = _text(), _text(), _equipped()
    spoilt[1, 4:] = 1e4

    found = refined(refiner, text, TIMES, (7, 4))
    alone = refined(refiner, text[1:, :4], TIMES[1:], (4,))

    assert torch.equal(refined(refiner, spoilt, TIMES, (7, 4))[1, :4], found[1, :4])
    assert_close(found[1:, :4], alone, rtol=0, atol=1e-6)


def test_no_mask_of_text_by_text_is_built() -> None:
    text, mask = _text(200), torch.arange(200)[None] < torch.tensor([[200], [120]])

    with Squares(150) as ours:
        refined(_equipped(), text, TIMES, (200, 120)).square().sum().backward()
    with Squares(150) as theirs:
        _refiner()(text, TIMES, mask)

    assert ours.found == []
    assert (2, 1, 200, 200) in [shape for _, shape in theirs.found]


def test_an_empty_text_is_not_divided_by_zero() -> None:
    found = refined(_equipped(), _text(), TIMES, (7, 0))

    assert found.isfinite().all()
