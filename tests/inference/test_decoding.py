from __future__ import annotations

import pytest
import torch

from musubi.architectures.wan.spec import Wan
from musubi.inference.decoding import decode, load_decoder, media
from musubi.inference.media import Image, Video


def test_latents_become_frames_of_the_size_and_length_they_stand_for(wan: Wan) -> None:
    latents = torch.randn(2, *wan.geometry.latent_shape((64, 48), 9), generator=torch.Generator().manual_seed(0))

    decoder = load_decoder(wan, device=torch.device("cpu"))
    frames = decode(wan, decoder, latents)

    assert frames.shape == (2, 9, 48, 64, 3)
    assert 0 <= frames.min() <= frames.max() <= 1
    assert {p.dtype for p in decoder.parameters()} == {torch.float32}


@pytest.mark.parametrize(("count", "kind"), [(1, Image), (5, Video)])
def test_one_frame_is_a_picture_and_more_are_a_clip(count: int, kind: type) -> None:
    made = media(torch.zeros(count, 8, 8, 3), fps=16, metadata={"seed": "7"})

    assert isinstance(made, kind)
    assert made.metadata == {"seed": "7"}
