from __future__ import annotations

import weakref

import pytest
import torch

from musubi.architectures.wan.spec import Wan
from musubi.inference.decoding import decode, media, opened_decoder
from musubi.inference.media import Image, Video
from musubi.memory.vae import VAETiling

CPU = torch.device("cpu")


def test_latents_become_frames_of_the_size_and_length_they_stand_for(wan: Wan) -> None:
    latents = torch.randn(2, *wan.geometry.latent_shape((64, 48), 9), generator=torch.Generator().manual_seed(0))

    with opened_decoder(wan, device=CPU) as decoder:
        frames = decode(wan, decoder, latents)
        assert {p.dtype for p in decoder.parameters()} == {torch.float32}

    assert frames.shape == (2, 9, 48, 64, 3)
    assert 0 <= frames.min() <= frames.max() <= 1


def test_the_decoder_works_under_the_policies_and_is_freed_with_them(wan: Wan) -> None:
    latents = torch.randn(1, *wan.geometry.latent_shape((128, 64), 1), generator=torch.Generator().manual_seed(0))

    with opened_decoder(wan, device=CPU) as decoder:
        whole, held = decode(wan, decoder, latents), weakref.ref(decoder)
    with opened_decoder(wan, policies=[VAETiling(tile=64, overlap=16)], device=CPU) as decoder:
        tiled = decode(wan, decoder, latents)

    assert held() is None
    assert not torch.equal(tiled, whole)


@pytest.mark.parametrize(("count", "kind"), [(1, Image), (5, Video)])
def test_one_frame_is_a_picture_and_more_are_a_clip(count: int, kind: type) -> None:
    made = media(torch.zeros(count, 8, 8, 3), fps=16, metadata={"seed": "7"})

    assert isinstance(made, kind)
    assert made.metadata == {"seed": "7"}
