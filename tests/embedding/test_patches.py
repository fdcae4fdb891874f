from __future__ import annotations

import torch

from musubi.embedding.patches import unpatched


def test_tokens_become_latents_channels_first() -> None:
    latents = torch.arange(2 * 3 * 2 * 4 * 6).reshape(2, 3, 2, 4, 6)
    patches = latents.reshape(2, 3, 2, 2, 2, 3, 2).permute(0, 2, 3, 5, 1, 4, 6)

    assert torch.equal(unpatched(patches.reshape(2, 12, 12), (2, 4, 6), (1, 2, 2)), latents)


def test_a_patch_may_have_several_frames() -> None:
    latents = torch.arange(3 * 4 * 4 * 6).reshape(1, 3, 4, 4, 6)
    patches = latents.reshape(1, 3, 2, 2, 2, 2, 3, 2).permute(0, 2, 4, 6, 1, 3, 5, 7)

    assert torch.equal(unpatched(patches.reshape(1, 12, 24), (4, 4, 6), (2, 2, 2)), latents)
