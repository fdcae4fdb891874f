"""Names and shapes of the published checkpoints, written out from the model's definition and not by our own table."""

from __future__ import annotations

from typing import NamedTuple

Shapes = dict[str, tuple[int, ...]]


class Size(NamedTuple):
    """Width, inner width of the feed-forward layers, and depth."""

    dim: int
    ffn: int
    layers: int


SMALL, LARGE = Size(1536, 8960, 30), Size(5120, 13824, 40)


def transformer(size: Size, *, inputs: int = 16, outputs: int = 16, clip: bool = False, flf: bool = False) -> Shapes:
    """Return what is in a transformer's original checkpoint."""
    dim, ffn, layers = size
    shapes: Shapes = {"patch_embedding.weight": (dim, inputs, 1, 2, 2), "patch_embedding.bias": (dim,)}
    _linear(shapes, "text_embedding.0", dim, 4096)
    _linear(shapes, "text_embedding.2", dim, dim)
    _linear(shapes, "time_embedding.0", dim, 256)
    _linear(shapes, "time_embedding.2", dim, dim)
    _linear(shapes, "time_projection.1", 6 * dim, dim)
    for block in (f"blocks.{i}" for i in range(layers)):
        shapes[f"{block}.modulation"] = (1, 6, dim)
        shapes |= {f"{block}.norm3.weight": (dim,), f"{block}.norm3.bias": (dim,)}
        for attention in ("self_attn", "cross_attn"):
            for name in "qkvo":
                _linear(shapes, f"{block}.{attention}.{name}", dim, dim)
            shapes |= {f"{block}.{attention}.norm_{name}.weight": (dim,) for name in "qk"}
        if clip:
            _linear(shapes, f"{block}.cross_attn.k_img", dim, dim)
            _linear(shapes, f"{block}.cross_attn.v_img", dim, dim)
            shapes[f"{block}.cross_attn.norm_k_img.weight"] = (dim,)
        _linear(shapes, f"{block}.ffn.0", ffn, dim)
        _linear(shapes, f"{block}.ffn.2", dim, ffn)
    _linear(shapes, "head.head", 4 * outputs, dim)
    shapes["head.modulation"] = (1, 2, dim)
    if clip:
        shapes |= {f"img_emb.proj.0.{leaf}": (1280,) for leaf in ("weight", "bias")}
        _linear(shapes, "img_emb.proj.1", 1280, 1280)
        _linear(shapes, "img_emb.proj.3", dim, 1280)
        shapes |= {f"img_emb.proj.4.{leaf}": (dim,) for leaf in ("weight", "bias")}
    if flf:
        shapes["img_emb.emb_pos"] = (1, 514, 1280)
    return shapes


def umt5(*, dim: int = 4096, ffn: int = 10240, heads: int = 64, layers: int = 24, vocabulary: int = 256384) -> Shapes:
    """Return what is in the text encoder's original checkpoint."""
    shapes: Shapes = {"token_embedding.weight": (vocabulary, dim), "norm.weight": (dim,)}
    for block in (f"blocks.{i}" for i in range(layers)):
        shapes |= {f"{block}.norm1.weight": (dim,), f"{block}.norm2.weight": (dim,)}
        shapes |= {f"{block}.attn.{name}.weight": (dim, dim) for name in "qkvo"}
        shapes |= {f"{block}.ffn.gate.0.weight": (ffn, dim), f"{block}.ffn.fc1.weight": (ffn, dim)}
        shapes |= {f"{block}.ffn.fc2.weight": (dim, ffn), f"{block}.pos_embedding.embedding.weight": (32, heads)}
    return shapes


def _linear(shapes: Shapes, name: str, rows: int, columns: int) -> None:
    shapes |= {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


FILES: dict[str, Shapes] = {
    "t2v 1.3B": transformer(SMALL),
    "t2v 14B": transformer(LARGE),
    "i2v 14B": transformer(LARGE, inputs=36, clip=True),
    "flf2v 14B": transformer(LARGE, inputs=36, clip=True, flf=True),
    "control 1.3B": transformer(SMALL, inputs=48, clip=True),
    "control 14B": transformer(LARGE, inputs=48, clip=True),
    "i2v A14B": transformer(LARGE, inputs=36),
    "ti2v 5B": transformer(Size(3072, 14336, 30), inputs=48, outputs=48),
}
"""Everything that is published, as far as names and shapes tell it apart."""

TASKS = {
    "t2v_1_3b": "t2v 1.3B",
    "t2v_14b": "t2v 14B",
    "t2i_14b": "t2v 14B",
    "i2v_14b": "i2v 14B",
    "flf2v_14b": "flf2v 14B",
    "t2v_1_3b_control": "control 1.3B",
    "t2v_14b_control": "control 14B",
    "i2v_14b_control": "control 14B",
    "t2v_a14b": "t2v 14B",
    "i2v_a14b": "i2v A14B",
    "ti2v_5b": "ti2v 5B",
}
"""Which of these files each task is for."""
