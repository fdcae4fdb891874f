"""Names and shapes of FramePack's checkpoints, written out from the model's definition and not by our own code."""

from __future__ import annotations

Shapes = dict[str, tuple[int, ...]]


def transformer(
    *,
    dim: int = 3072,
    head_dim: int = 128,
    mlp: int = 12288,
    double: int = 20,
    single: int = 40,
    refiner: int = 2,
    text: int = 4096,
    pooled: int = 768,
    image: int = 1152,
    guided: bool = True,
) -> Shapes:
    """Return what is in a transformer's checkpoint."""
    shapes: Shapes = {}
    for name, kernel in (("", (1, 2, 2)), ("_2x", (2, 4, 4)), ("_4x", (4, 8, 8))):
        _tensors(shapes, f"clean_x_embedder.proj{name}", dim, 16, *kernel)
    _tensors(shapes, "x_embedder.proj", dim, 16, 1, 2, 2)
    _tensors(shapes, "image_projection.up", 3 * dim, image)
    _tensors(shapes, "image_projection.down", dim, 3 * dim)
    _embedders(
        shapes, "time_text_embed", dim, {"timestep": 256, "text": pooled, **({"guidance": 256} if guided else {})}
    )
    _embedders(shapes, "context_embedder.time_text_embed", dim, {"timestep": 256, "text": text})
    _tensors(shapes, "context_embedder.proj_in", dim, text)
    for block in (f"context_embedder.token_refiner.refiner_blocks.{i}" for i in range(refiner)):
        shapes |= {f"{block}.{norm}.{leaf}": (dim,) for norm in ("norm1", "norm2") for leaf in ("weight", "bias")}
        for name in ("to_q", "to_k", "to_v", "to_out.0"):
            _tensors(shapes, f"{block}.attn.{name}", dim, dim)
        _feed_forward(shapes, f"{block}.ff", dim, 4 * dim)
        _tensors(shapes, f"{block}.norm_out.linear", 2 * dim, dim)
    for block in (f"transformer_blocks.{i}" for i in range(double)):
        _double(shapes, block, dim, head_dim, mlp)
    for block in (f"single_transformer_blocks.{i}" for i in range(single)):
        for name in ("to_q", "to_k", "to_v"):
            _tensors(shapes, f"{block}.attn.{name}", dim, dim)
        shapes |= {f"{block}.attn.{name}.weight": (head_dim,) for name in ("norm_q", "norm_k")}
        _tensors(shapes, f"{block}.norm.linear", 3 * dim, dim)
        _tensors(shapes, f"{block}.proj_mlp", mlp, dim)
        _tensors(shapes, f"{block}.proj_out", dim, dim + mlp)
    _tensors(shapes, "norm_out.linear", 2 * dim, dim)
    _tensors(shapes, "proj_out", 64, dim)
    return shapes


def _double(shapes: Shapes, block: str, dim: int, head_dim: int, mlp: int) -> None:
    for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0", "to_add_out"):
        _tensors(shapes, f"{block}.attn.{name}", dim, dim)
    for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
        shapes[f"{block}.attn.{name}.weight"] = (head_dim,)
    for context in ("", "_context"):
        _tensors(shapes, f"{block}.norm1{context}.linear", 6 * dim, dim)
        _feed_forward(shapes, f"{block}.ff{context}", dim, mlp)


def _feed_forward(shapes: Shapes, name: str, dim: int, inner: int) -> None:
    _tensors(shapes, f"{name}.net.0.proj", inner, dim)
    _tensors(shapes, f"{name}.net.2", dim, inner)


def _embedders(shapes: Shapes, name: str, dim: int, widths: dict[str, int]) -> None:
    for kind, width in widths.items():
        _tensors(shapes, f"{name}.{kind}_embedder.linear_1", dim, width)
        _tensors(shapes, f"{name}.{kind}_embedder.linear_2", dim, dim)


def _tensors(shapes: Shapes, name: str, rows: int, *columns: int) -> None:
    shapes |= {f"{name}.weight": (rows, *columns), f"{name}.bias": (rows,)}
