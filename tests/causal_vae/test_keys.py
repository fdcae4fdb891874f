from __future__ import annotations

import pytest
from accelerate import init_empty_weights
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from musubi.causal_vae.keys import vae_keys


@pytest.mark.parametrize("num_res_blocks", [1, 2, 3])
def test_the_vae_maps_one_to_one(num_res_blocks: int) -> None:
    with init_empty_weights():
        model = AutoencoderKLWan(num_res_blocks=num_res_blocks)
    keys = vae_keys(num_res_blocks=num_res_blocks)
    library = [name for name, _ in model.named_parameters()]

    originals = [keys.to_original(name)[0] for name in library]

    assert len(set(originals)) == len(library)
    assert [keys.to_library(name)[0].name for name in originals] == library
    assert not any("block" in name or "quant" in name for name in originals)
