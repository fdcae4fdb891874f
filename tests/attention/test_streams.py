from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.transformers.transformer_flux import FluxAttention, FluxAttnProcessor
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoAttnProcessor2_0
from diffusers.models.transformers.transformer_qwenimage import QwenDoubleStreamAttnProcessor2_0
from torch import Tensor, nn
from torch.testing import assert_close

from musubi.attention.ragged import ragged
from musubi.attention.rotary import followed_by_text, turns
from musubi.attention.streams import JointAttention, MergedAttention, TextAttention, equip

CELLS, WORDS, WIDTH = 6, 3, 32
KNOWN = ragged([WORDS, 1], more=CELLS, device=torch.device("cpu"))
MASK = torch.tensor([[True] * 9, [True] * 7 + [False] * 2])[:, None, None]


def _drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _module(*, double: bool) -> Any:
    torch.manual_seed(0)
    return Attention(
        query_dim=WIDTH,
        dim_head=16,
        heads=2,
        out_dim=WIDTH,
        bias=True,
        qk_norm="rms_norm",
        eps=1e-6,
        added_kv_proj_dim=WIDTH if double else None,
        context_pre_only=False if double else None,
        pre_only=not double,
        processor=HunyuanVideoAttnProcessor2_0(),  # type: ignore[arg-type]
    )


def _flux(*, double: bool) -> Any:
    torch.manual_seed(0)
    return FluxAttention(
        query_dim=WIDTH,
        dim_head=16,
        heads=2,
        out_dim=WIDTH,
        bias=True,
        eps=1e-6,
        added_kv_proj_dim=WIDTH if double else None,
        context_pre_only=False if double else None,
        pre_only=not double,
        processor=FluxAttnProcessor(),
    )


def _tables(count: int) -> tuple[Tensor, Tensor]:
    phases = _drawn(count, 8, seed=3).repeat_interleave(2, dim=1)
    return phases.cos(), phases.sin()


@pytest.mark.parametrize("double", [True, False])
def test_attention_with_text_last_is_diffusers_own_but_for_padding(*, double: bool) -> None:
    attn, (cos, sin) = _module(double=double), _tables(CELLS)
    clip, text = _drawn(2, CELLS, WIDTH), _drawn(2, WORDS, WIDTH, seed=1)
    places = turns(cos, sin)

    with torch.no_grad():
        expected = attn(clip, encoder_hidden_states=text, attention_mask=MASK, image_rotary_emb=(cos, sin))
        attn.set_processor(JointAttention() if double else MergedAttention())
        told = (places, None) if double else followed_by_text(places, WORDS)
        found = attn(clip, encoder_hidden_states=text, attention_mask=KNOWN, image_rotary_emb=told)

    assert_close(found[0], expected[0], rtol=0, atol=1e-6)
    assert_close(found[1][0], expected[1][0], rtol=0, atol=1e-6)
    assert_close(found[1][1, :1], expected[1][1, :1], rtol=0, atol=1e-6)


def test_attention_with_text_first_is_diffusers_own_but_for_padding() -> None:
    attn, image, text = _module(double=True), _drawn(2, CELLS, WIDTH), _drawn(2, WORDS, WIDTH, seed=1)
    waves = [torch.complex(cos[:, ::2], sin[:, ::2]) for cos, sin in (_tables(CELLS), _tables(WORDS))]
    attn.set_processor(QwenDoubleStreamAttnProcessor2_0())

    with torch.no_grad():
        words = torch.arange(WORDS)[None] < torch.tensor([[WORDS], [1]])
        expected = attn(
            image, encoder_hidden_states=text, encoder_hidden_states_mask=words, image_rotary_emb=tuple(waves)
        )
        attn.set_processor(JointAttention())
        places = tuple(torch.view_as_real(wave)[:, None] for wave in waves)
        found = attn(image, encoder_hidden_states=text, encoder_hidden_states_mask=KNOWN, image_rotary_emb=places)

    assert_close(found[0], expected[0], rtol=0, atol=1e-6)
    assert_close(found[1][1, :1], expected[1][1, :1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("double", [True, False])
def test_attention_with_one_table_for_text_and_image_is_diffusers_own(*, double: bool) -> None:
    attn, (cos, sin) = _flux(double=double), _tables(WORDS + CELLS)
    image, text = _drawn(2, CELLS, WIDTH), _drawn(2, WORDS, WIDTH, seed=1)
    words, cells = turns(cos, sin).split([WORDS, CELLS])

    with torch.no_grad():
        if double:
            expected = attn(image, encoder_hidden_states=text, image_rotary_emb=(cos, sin))
            attn.set_processor(JointAttention())
            found = attn(image, encoder_hidden_states=text, image_rotary_emb=(cells, words))
        else:
            joined = torch.cat([text, image], dim=1)
            expected = attn(joined, image_rotary_emb=(cos, sin))
            attn.set_processor(MergedAttention())
            found = attn(joined, image_rotary_emb=turns(cos, sin))

    assert_close(found, expected, rtol=0, atol=1e-6)


def test_attention_over_text_is_diffusers_own_but_for_padding() -> None:
    torch.manual_seed(0)
    attn: Any = Attention(query_dim=WIDTH, heads=2, dim_head=16, bias=True)
    attn.set_processor(AttnProcessor2_0())
    text = _drawn(2, WORDS, WIDTH)
    mask = torch.tensor([[True] * 3, [True, False, False]])[:, None, None]

    with torch.no_grad():
        expected = attn(text, attention_mask=mask.expand(2, 2, WORDS, WORDS).flatten(0, 1))
        attn.set_processor(TextAttention())
        found = attn(text, attention_mask=ragged([WORDS, 1], device=torch.device("cpu")))

    assert_close(found[0], expected[0], rtol=0, atol=1e-6)
    assert_close(found[1, :1], expected[1, :1], rtol=0, atol=1e-6)


def test_all_blocks_of_a_list_get_the_processor() -> None:
    blocks = nn.ModuleList([nn.Module(), nn.Module()])
    for block in blocks:
        block.attn = _module(double=True)
    processor: Any = JointAttention()

    equip(blocks, processor)

    assert all(block.get_submodule("attn").processor is processor for block in blocks)


def test_a_compiled_module_is_one_graph_and_two_for_all_lengths() -> None:
    attn, places = _module(double=True), turns(*_tables(CELLS))
    attn.set_processor(JointAttention())
    image = _drawn(2, CELLS, WIDTH)
    compiled: Any = torch.compile(attn, backend="aot_eager", fullgraph=True)
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()

    for counts in ([5, 2], [7, 3], [9, 4], [12, 6], [8, 3]):
        text = _drawn(2, max(counts), WIDTH)
        known = ragged(counts, more=CELLS, device=torch.device("cpu"))
        given = {"encoder_hidden_states": text, "attention_mask": known, "image_rotary_emb": (places, None)}
        assert_close(compiled(image, **given), attn(image, **given), rtol=0, atol=0)

    assert counters["stats"]["unique_graphs"] == 2
