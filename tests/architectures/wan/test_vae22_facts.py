from __future__ import annotations

import pytest

from musubi.architectures.wan.detect import describe
from musubi.architectures.wan.vae import empty_vae22
from musubi.architectures.wan.vae22_facts import LATENTS_MEAN_22, LATENTS_STD_22, Vae22Facts
from musubi.architectures.wan.vae22_keys import vae22_keys
from tests.architectures.wan.fakes import header_only

PUBLISHED = Vae22Facts(
    base_dim=160,
    decoder_dim=256,
    z_dim=48,
    dim_mult=(1, 2, 4, 4),
    num_res_blocks=2,
    temporal_downsample=(False, True, True),
    channels=12,
    patch=2,
    latents_mean=LATENTS_MEAN_22,
    latents_std=LATENTS_STD_22,
)


@pytest.mark.parametrize("original", [True, False])
def test_the_sizes_of_the_published_vae_are_read_in_both_spellings(original: bool) -> None:
    keys = vae22_keys()
    names = {name: tuple(p.shape) for name, p in empty_vae22(PUBLISHED).named_parameters()}
    shapes = {keys.to_original(name)[0] if original else name: shape for name, shape in names.items()}
    checkpoint = header_only(shapes)

    found = describe(checkpoint)

    assert found.kind == "vae22"
    assert Vae22Facts.of(checkpoint, found) == PUBLISHED


def test_statistics_of_the_latents_come_from_the_file_if_it_tells_them() -> None:
    names = {name: tuple(p.shape) for name, p in empty_vae22(PUBLISHED).named_parameters()}
    checkpoint = header_only(names, {"wan_vae.latents_mean": str([0.5] * 48)})

    facts = Vae22Facts.of(checkpoint, describe(checkpoint))

    assert facts.latents_mean == (0.5,) * 48
    assert facts.latents_std == LATENTS_STD_22


def test_there_are_48_published_statistics() -> None:
    assert len(LATENTS_MEAN_22) == len(LATENTS_STD_22) == 48
    assert min(LATENTS_STD_22) > 0
