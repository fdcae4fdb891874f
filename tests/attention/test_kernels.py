from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers.models import attention_dispatch
from torch import Tensor
from torch.testing import assert_close

from musubi.attention.kernels import Backend, attend
from musubi.attention.ragged import Ragged, ragged
from tests.attention.plain import plain
from tests.attention.squares import Squares

CPU = torch.device("cpu")
COUNTS = (7, 3, 5)
IN_A_ROW = {"flash": "flash_attn_varlen_func", "_flash_3": "flash_attn_3_varlen_func", "sage": "sageattn_varlen"}
DENSE = {"flash": "flash_attn_func", "_flash_3": "flash_attn_3_func", "sage": "sageattn"}


def _drawn(length: int = 8, *, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, length, 2, 16, generator=generator).to(dtype).requires_grad_() for _ in range(3)]


def _known(counts: Sequence[int] = COUNTS) -> Ragged:
    found = ragged(counts, device=CPU)
    assert found is not None
    return found


def test_each_sample_gets_what_it_gets_alone_and_gradients_too() -> None:
    together, alone = _drawn(), _drawn()
    target = torch.randn(3, 8, 2, 16)

    mixed = attend(*together, ragged=_known())
    (mixed * target).sum().backward()
    for index, count in enumerate(COUNTS):
        single = attend(*(x[index : index + 1, :count] for x in alone))
        (single[0] * target[index, :count]).sum().backward()

        assert torch.equal(mixed[index, :count], single[0])
        assert not mixed[index, count:].any()

    for ours, own in zip(together, alone, strict=True):
        assert ours.grad is not None
        assert own.grad is not None
        assert torch.equal(ours.grad, own.grad)


def test_nothing_of_the_padding_is_seen() -> None:
    clean = _drawn()
    spoilt = [x.detach().clone() for x in clean]
    for x in spoilt:
        for index, count in enumerate(COUNTS):
            x[index, count:] = torch.nan

    assert torch.equal(attend(*spoilt, ragged=_known()), attend(*clean, ragged=_known()))


def test_a_sample_without_a_token_that_counts_gets_zeros() -> None:
    found = attend(*_drawn(), ragged=_known((4, 0, 8)))

    assert found.isfinite().all()
    assert not found[1].any()


def test_no_tensor_of_tokens_by_tokens_is_made() -> None:
    heads = _drawn(200)

    with Squares(100) as watch:
        attend(*heads, ragged=_known((200, 150, 100))).square().sum().backward()
    with Squares(100) as control:
        (heads[0][:, :, 0] @ heads[1][:, :, 0].mT).sum()

    assert watch.found == []
    assert (3, 200, 200) in [shape for _, shape in control.found]


def test_under_autocast_queries_and_keys_become_what_values_are() -> None:
    query, key, value = _drawn()

    found = attend(query, key, value.bfloat16())

    assert found.dtype == torch.bfloat16
    assert torch.equal(found, attend(query.bfloat16(), key.bfloat16(), value.bfloat16()))


def test_what_was_set_for_the_whole_process_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = attend(*_drawn())
    monkeypatch.setattr(attention_dispatch._AttentionBackendRegistry, "_active_backend", Backend.FLASH)

    assert torch.equal(attend(*_drawn()), expected)


@pytest.mark.parametrize("backend", ["native", "_native_math", "_native_flash"])
def test_torch_s_kernels_agree(backend: str) -> None:
    assert_close(attend(*_drawn(), ragged=_known(), backend=Backend(backend)), attend(*_drawn(), ragged=_known()))


@pytest.mark.parametrize("backend", DENSE)
def test_a_package_s_kernel_is_reached_through_diffusers(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []

    def kernel(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        assert options.get("tensor_layout", "NHD") == "NHD"
        calls.append(tuple(q.shape))
        return plain(q, k, v)

    monkeypatch.setattr(attention_dispatch, DENSE[backend], kernel)

    found = attend(*_drawn(), backend=Backend(backend))

    assert calls == [(3, 8, 2, 16)]
    assert torch.equal(found, attend(*_drawn()))


@pytest.mark.parametrize("with_sums", [False, True])
@pytest.mark.parametrize("backend", IN_A_ROW)
def test_kernels_that_can_take_all_samples_in_one_row(
    backend: str, monkeypatch: pytest.MonkeyPatch, *, with_sums: bool
) -> None:
    calls: list[int] = []

    def kernel(q: Tensor, k: Tensor, v: Tensor, **told: Any) -> Tensor | tuple[Tensor, Tensor]:
        assert told.keys() == {"cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k"}
        assert torch.equal(told["cu_seqlens_q"], told["cu_seqlens_k"])
        calls.append(len(q))
        spans = list(pairwise(told["cu_seqlens_q"].tolist()))
        assert told["max_seqlen_q"] == told["max_seqlen_k"] == max(end - start for start, end in spans)
        out = torch.cat([plain(*(x[None, start:end] for x in (q, k, v)))[0] for start, end in spans])
        return (out, out.sum(-1)) if with_sums else out

    monkeypatch.setattr(attention_dispatch, IN_A_ROW[backend], kernel)
    rows, each = _drawn(), _drawn()

    found = attend(*rows, ragged=_known(), backend=Backend(backend))
    found.square().sum().backward()
    expected = attend(*each, ragged=_known())
    expected.square().sum().backward()

    assert calls == [sum(COUNTS)]
    assert torch.equal(found, expected)
    for one, other in zip(rows, each, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert_close(one.grad, other.grad)


def test_other_kernels_get_each_sample_and_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []

    def registered(**given: Any) -> Tensor:
        assert given["attn_mask"] is None
        calls.append(tuple(given["query"].shape))
        return plain(given["query"], given["key"], given["value"])

    registry = attention_dispatch._AttentionBackendRegistry
    monkeypatch.setitem(registry._backends, Backend.XFORMERS, registered)

    found = attend(*_drawn(), ragged=_known(), backend=Backend.XFORMERS)

    assert calls == [(1, count, 2, 16) for count in COUNTS]
    assert torch.equal(found, attend(*_drawn(), ragged=_known()))


def test_a_bias_is_added_to_the_scores() -> None:
    query, key, value = _drawn()
    doubled = torch.cat([key, key[:, -1:]], dim=1), torch.cat([value, value[:, -1:]], dim=1)
    bias = torch.zeros(1, 1, 1, 8)
    bias[..., -1] = torch.tensor(2.0).log()

    assert_close(attend(query, key, value, bias=bias), attend(query, *doubled))
