"""Names and shapes of Qwen-Image's checkpoints, written out from the model's definition and not by our own code."""

from __future__ import annotations

from collections.abc import Iterable

Shapes = dict[str, tuple[int, ...]]
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


def transformer(
    *, dim: int = 3072, head_dim: int = 128, blocks: Iterable[int] = range(60), inputs: int = 64, text: int = 3584
) -> Shapes:
    """Return what is in a transformer's checkpoint."""
    shapes: Shapes = {"txt_norm.weight": (text,)}
    _linear(shapes, "img_in", dim, inputs)
    _linear(shapes, "txt_in", dim, text)
    _linear(shapes, "time_text_embed.timestep_embedder.linear_1", dim, 256)
    _linear(shapes, "time_text_embed.timestep_embedder.linear_2", dim, dim)
    for block in (f"transformer_blocks.{i}" for i in blocks):
        for name in ATTENTION:
            _linear(shapes, f"{block}.attn.{name}", dim, dim)
        shapes |= {
            f"{block}.attn.{name}.weight": (head_dim,) for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k")
        }
        for stream in ("img", "txt"):
            _linear(shapes, f"{block}.{stream}_mod.1", 6 * dim, dim)
            _linear(shapes, f"{block}.{stream}_mlp.net.0.proj", 4 * dim, dim)
            _linear(shapes, f"{block}.{stream}_mlp.net.2", dim, 4 * dim)
    _linear(shapes, "norm_out.linear", 2 * dim, dim)
    _linear(shapes, "proj_out", inputs, dim)
    return shapes


def _linear(shapes: Shapes, name: str, rows: int, columns: int) -> None:
    shapes |= {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}
