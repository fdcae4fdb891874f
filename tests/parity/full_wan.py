"""Wan's published transformers on the meta device, by the reference's names of the tasks."""

from __future__ import annotations

from torch import nn

from musubi.architectures.wan.facts import DitFacts
from musubi.architectures.wan.transformer import empty_transformer

_SIZES = {"1.3B": (1536, 8960, 12, 30), "14B": (5120, 13824, 40, 40), "5B": (3072, 14336, 24, 30)}


def full_wan(arch: str) -> nn.Module:
    """Return the transformer of ``wan_<task>``."""
    size = next(size for name, size in _SIZES.items() if arch.removesuffix("-FC").endswith(name))
    two_point_two = arch.endswith(("A14B", "5B"))
    # The Fun-Control models attend to an image even where they are called text to video.
    image = not two_point_two and (arch.endswith("-FC") or not arch.startswith(("wan_t2v", "wan_t2i")))
    dim, ffn_dim, num_heads, num_layers = size
    facts = DitFacts(
        dim=dim,
        ffn_dim=ffn_dim,
        num_heads=num_heads,
        num_layers=num_layers,
        in_channels=16,
        out_channels=16,
        text_dim=4096,
        freq_dim=256,
        patch=(1, 2, 2),
        image_dim=1280 if image else None,
        image_tokens=514 if "flf2v" in arch else None,
        image_keys=image,
    )
    return empty_transformer(facts)
