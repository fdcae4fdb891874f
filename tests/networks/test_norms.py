from __future__ import annotations

import torch

from musubi.networks.lora_layer import LoRALayer
from musubi.networks.norms import limit_norms


def layer(size: float) -> LoRALayer:
    made = LoRALayer(2, (2,), rank=1, alpha=1.0)
    with torch.no_grad():
        made.down.copy_(torch.tensor([[1.0, 0.0]]))
        made.up.copy_(torch.tensor([[size], [0.0]]))
    return made


def test_only_what_is_above_the_limit_is_scaled_back_to_it() -> None:
    layers = [layer(0.5), layer(3.0)]

    found = limit_norms(layers, 1.0)

    assert (found.scaled, found.mean, found.largest) == (1, 0.75, 1.0)
    torch.testing.assert_close(layers[1].norm(), torch.tensor(1.0))
    assert layers[0].norm() == 0.5
