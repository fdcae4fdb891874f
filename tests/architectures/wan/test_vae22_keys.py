from __future__ import annotations

import pytest
from accelerate import init_empty_weights
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from musubi.architectures.wan.vae22_keys import vae22_keys


@pytest.mark.parametrize("num_res_blocks", [1, 2, 3])
def test_the_vae_of_wan_22_maps_one_to_one(num_res_blocks: int) -> None:
    with init_empty_weights():
        model = AutoencoderKLWan(
            num_res_blocks=num_res_blocks, z_dim=48, is_residual=True, in_channels=12, out_channels=12, patch_size=2
        )
    keys = vae22_keys(num_res_blocks=num_res_blocks)
    library = [name for name, _ in model.named_parameters()]

    originals = [keys.to_original(name)[0] for name in library]

    assert len(set(originals)) == len(library)
    assert [keys.to_library(name)[0].name for name in originals] == library
    assert not any("block" in name or "quant" in name or "downsampler" in name for name in originals)
