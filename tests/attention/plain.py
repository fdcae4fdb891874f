"""What every kernel computes, in the order of axes that packages have."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def plain(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the attention (B, tokens, heads, channels) of tensors of such shapes."""
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    return scaled_dot_product_attention(query, key, value, attn_mask=bias).transpose(1, 2)
