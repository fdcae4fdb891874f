from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoAttnProcessor2_0
from diffusers.models.transformers.transformer_hunyuan_video_framepack import HunyuanVideoFramepackRotaryPosEmbed
from torch import Tensor
from torch.testing import assert_close

from musubi.architectures.framepack.positions import PlacedAttention, padded, rotary_tables, rotated

AXES = (4, 6, 6)


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_tables_are_diffusers_own_for_every_sample() -> None:
    frames = torch.tensor([[7, 8, 9], [1, 2, 3]])
    theirs = HunyuanVideoFramepackRotaryPosEmbed(2, 1, list(AXES))

    cos, sin = rotary_tables(frames, (3, 5), AXES)

    for sample, positions in enumerate(frames):
        expected = theirs(frame_indices=positions, height=6, width=10, device=torch.device("cpu"))
        assert torch.equal(cos[sample], expected[0])
        assert torch.equal(sin[sample], expected[1])


def test_larger_tokens_lie_in_the_mean_of_the_places_they_cover() -> None:
    frames, size = torch.tensor([[11, 12]]), (4, 6)
    fine, _ = rotary_tables(frames, size, AXES)

    coarse, _ = rotary_tables(frames, size, AXES, pooled=2)

    cubes = fine.reshape(2, 2, 2, 3, 2, 16)  # frames, rows and pairs of them, columns and pairs of them, channels
    assert_close(coarse[0], cubes.mean(dim=(0, 2, 4)).reshape(6, 16))


def test_at_the_edge_the_last_entries_are_repeated() -> None:
    volume = torch.arange(2 * 3 * 5).reshape(1, 1, 2, 3, 5).float()

    found = padded(volume, (2, 4, 4))

    assert found.shape == (1, 1, 2, 4, 8)
    assert torch.equal(found[..., :3, :5], volume)
    assert torch.equal(found[..., 3, :5], volume[..., 2, :])
    assert (found[..., 5:] == found[..., 4:5]).all()
    assert padded(volume, (1, 3, 5)).shape == volume.shape


def test_text_is_not_turned() -> None:
    heads, tables = _random(2, 8, 3, 16), rotary_tables(torch.tensor([[1], [2]]), (2, 3), AXES)

    found = rotated(heads, tables)

    assert torch.equal(found[:, 6:], heads[:, 6:])
    for sample in range(2):
        one = (tables[0][sample], tables[1][sample])
        expected: object = apply_rotary_emb(heads[sample : sample + 1, :6], one, sequence_dim=1)  # type: ignore[arg-type]
        assert isinstance(expected, Tensor)
        assert torch.equal(found[sample : sample + 1, :6], expected)


@pytest.mark.parametrize("double", [True, False])
def test_attention_is_diffusers_own_where_samples_share_their_places(*, double: bool) -> None:
    torch.manual_seed(0)
    attn = Attention(
        query_dim=32,
        dim_head=16,
        heads=2,
        out_dim=32,
        bias=True,
        qk_norm="rms_norm",
        eps=1e-6,
        added_kv_proj_dim=32 if double else None,
        context_pre_only=False if double else None,
        pre_only=not double,
        processor=HunyuanVideoAttnProcessor2_0(),  # type: ignore[arg-type]
    )
    clip, text = _random(2, 6, 32), _random(2, 3, 32)
    mask = torch.tensor([[True] * 9, [True] * 7 + [False] * 2])[:, None, None]
    cos, sin = rotary_tables(torch.tensor([[4], [4]]), (2, 3), AXES)

    with torch.no_grad():
        expected = attn(clip, encoder_hidden_states=text, attention_mask=mask, image_rotary_emb=(cos[0], sin[0]))
        attn.set_processor(PlacedAttention())  # type: ignore[arg-type]
        found = attn(clip, encoder_hidden_states=text, attention_mask=mask, image_rotary_emb=(cos, sin))

    assert_close(found, expected, rtol=0, atol=1e-6)
