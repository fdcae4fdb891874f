from __future__ import annotations

import torch
from diffusers.models.transformers.transformer_hunyuan_video_framepack import HunyuanVideoFramepackRotaryPosEmbed
from torch.testing import assert_close

from musubi.architectures.framepack.positions import padded, rotary_tables

AXES = (4, 6, 6)


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
