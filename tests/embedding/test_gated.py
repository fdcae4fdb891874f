from __future__ import annotations

import torch
from transformers import T5Config
from transformers.models.t5.modeling_t5 import T5DenseGatedActDense

from musubi.embedding.gated import GatedByType


class Gated(GatedByType, T5DenseGatedActDense):
    pass


CONFIG = T5Config(d_model=8, d_ff=12, dropout_rate=0.0, feed_forward_proj="gated-gelu")


def test_it_computes_what_transformers_does() -> None:
    theirs = T5DenseGatedActDense(CONFIG)
    ours = Gated(CONFIG)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 8)

    assert torch.equal(ours(x), theirs(x))


def test_a_weight_in_8_bits_does_not_round_what_goes_into_it() -> None:
    layer = Gated(CONFIG)
    seen: list[torch.dtype] = []

    class Kept(torch.nn.Module):
        weight = torch.zeros(8, 12, dtype=torch.float8_e4m3fn)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.dtype)
            return x[..., :8]

    layer.wo = Kept()  # type: ignore[assignment]

    assert layer(torch.randn(1, 2, 8)).dtype == torch.float32
    assert seen == [torch.float32]
