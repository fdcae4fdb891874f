"""Random weights under which networks are well-behaved, and everything in them matters."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

_LOOKED_UP = ("shared.weight", "embed_tokens.weight", "token_embedding.weight", "addition_t_embedding.weight")
_MODULATED = ("scale_shift_table",)


def enliven(model: nn.Module) -> nn.Module:
    """Give every parameter random values, so that a tensor in a wrong place shows; return the model."""
    import torch
    from torch import nn

    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and not name.endswith(_MODULATED):
            fan_in = parameter[0].numel()
            nn.init.normal_(parameter, std=1.0 if name.endswith(_LOOKED_UP) else fan_in**-0.5)
        elif "norm" in name and name.endswith("weight"):
            nn.init.normal_(parameter, mean=1.0, std=0.1)
        else:
            with torch.no_grad():
                parameter.normal_(std=0.1)
    return model
