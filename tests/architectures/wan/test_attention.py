from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusers.models import attention_dispatch
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from musubi.architectures.wan.attention import PaddingAttention, SelfAttention, counted, padded_text
from musubi.attention.kernels import Backend
from tests.attention.plain import plain

WIDTH, TEXT_LENGTH = 32, 512


def _drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _module(processor: object) -> Any:
    torch.manual_seed(0)
    made: Any = WanAttention(dim=WIDTH, heads=2, dim_head=16, cross_attention_dim_head=16, processor=processor)
    return made


def _theirs() -> object:
    return WanAttnProcessor()


def _text(length: int) -> Tensor:
    return torch.cat([_drawn(2, length - 1, WIDTH, seed=1), _drawn(1, 1, WIDTH, seed=2).expand(2, -1, -1)], dim=1)


def _filled(text: Tensor) -> Tensor:
    return torch.cat([text, text[:, -1:].expand(-1, TEXT_LENGTH - text.shape[1], -1)], dim=1)


@given(st.integers(2, 513), st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_a_few_numbers_of_any_type_count_all_the_padding(number: int, dtype: torch.dtype) -> None:
    found = counted(number, dtype)

    assert torch.tensor(found, dtype=dtype).tolist() == list(found)
    assert abs(math.fsum(map(math.exp, found)) / number - 1) <= 1.01e-6
    assert len(found) == 1 if dtype == torch.float32 else len(found) <= 4


@pytest.mark.parametrize("length", [1, 7, 511, 512])
def test_short_text_is_attended_to_like_all_the_padding(length: int) -> None:
    tokens, text = _drawn(2, 6, WIDTH), _text(length)

    with torch.no_grad():
        expected = _module(_theirs())(tokens, _filled(text))
        found = _module(PaddingAttention())(tokens, padded_text(text))
        unprepared = _module(PaddingAttention())(tokens, text)

    assert_close(found, expected, rtol=0, atol=5e-6)
    assert torch.equal(unprepared, found)


@pytest.mark.parametrize("length", [5, 60, 300])
def test_in_bfloat16_the_padding_weighs_no_less_exactly_than_the_padding_itself(length: int) -> None:
    tokens, text = (x.bfloat16() for x in (_drawn(2, 6, WIDTH), _text(length)))
    plain, ours = _module(_theirs()).bfloat16(), _module(PaddingAttention()).bfloat16()
    exact = _module(_theirs()).bfloat16().float()

    with torch.no_grad():
        wanted = exact(tokens.float(), _filled(text).float())
        usual = plain(tokens, _filled(text)).float()
        found = ours(tokens, padded_text(text)).float()

    assert (found - wanted).norm() <= 1.1 * (usual - wanted).norm()


def test_gradients_of_keys_and_values_are_those_of_all_the_padding() -> None:
    tokens, text = _drawn(2, 6, WIDTH), _text(7)
    whole, short = _module(_theirs()), _module(PaddingAttention())

    whole(tokens, _filled(text)).square().sum().backward()
    short(tokens, padded_text(text)).square().sum().backward()

    for name, parameter in whole.named_parameters():
        assert_close(short.get_parameter(name).grad, parameter.grad, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("backend", ["flash", "sage"])
def test_a_kernel_that_adds_nothing_to_scores_sees_all_512_tokens(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def kernel(q: Tensor, k: Tensor, v: Tensor, **options: object) -> Tensor:
        seen.append(k.shape[1])
        return plain(q, k, v)

    monkeypatch.setattr(attention_dispatch, {"flash": "flash_attn_func", "sage": "sageattn"}[backend], kernel)
    processor: Any = PaddingAttention()
    tokens, text = _drawn(2, 6, WIDTH), padded_text(_text(7))

    expected = _module(processor)(tokens, text)
    processor._attention_backend = Backend(backend)
    found = _module(processor)(tokens, text)

    assert seen == [TEXT_LENGTH]
    assert_close(found, expected, rtol=0, atol=5e-6)


def test_self_attention_is_diffusers_own() -> None:
    tokens = _drawn(2, 6, WIDTH)
    phases = _drawn(1, 6, 1, 8, seed=4).repeat_interleave(2, dim=-1)
    tables = (phases.cos(), phases.sin())

    with torch.no_grad():
        expected = _module(_theirs())(tokens, None, None, tables)
        found = _module(SelfAttention())(tokens, None, None, tables)

    assert_close(found, expected, rtol=0, atol=5e-6)


def test_a_compiled_module_is_one_graph_and_two_for_all_lengths_of_text() -> None:
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    attn, tokens = _module(PaddingAttention()).bfloat16(), _drawn(2, 6, WIDTH).bfloat16()
    compiled: Any = torch.compile(attn, backend="aot_eager", fullgraph=True)

    for length in (5, 9, 31, 200):
        text = padded_text(_text(length).bfloat16())
        assert torch.equal(compiled(tokens, text), attn(tokens, text))

    assert counters["stats"]["unique_graphs"] == 2
