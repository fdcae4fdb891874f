"""Names and shapes of FLUX.1's checkpoints, written out from the model's definition and not by our own table."""

from __future__ import annotations

Shapes = dict[str, tuple[int, ...]]


def transformer(
    *,
    dim: int = 3072,
    head_dim: int = 128,
    double: int = 19,
    single: int = 38,
    inputs: int = 64,
    text: int = 4096,
    pooled: int = 768,
    guided: bool = True,
) -> Shapes:
    """Return what is in a transformer's original checkpoint."""
    shapes: Shapes = {}
    _linear(shapes, "img_in", dim, inputs)
    _linear(shapes, "txt_in", dim, text)
    for name, width in (("time_in", 256), ("vector_in", pooled), *((("guidance_in", 256),) if guided else ())):
        _linear(shapes, f"{name}.in_layer", dim, width)
        _linear(shapes, f"{name}.out_layer", dim, dim)
    for block in (f"double_blocks.{i}" for i in range(double)):
        for stream in ("img", "txt"):
            _linear(shapes, f"{block}.{stream}_mod.lin", 6 * dim, dim)
            _linear(shapes, f"{block}.{stream}_attn.qkv", 3 * dim, dim)
            _linear(shapes, f"{block}.{stream}_attn.proj", dim, dim)
            _linear(shapes, f"{block}.{stream}_mlp.0", 4 * dim, dim)
            _linear(shapes, f"{block}.{stream}_mlp.2", dim, 4 * dim)
            shapes |= {f"{block}.{stream}_attn.norm.{which}_norm.scale": (head_dim,) for which in ("query", "key")}
    for block in (f"single_blocks.{i}" for i in range(single)):
        _linear(shapes, f"{block}.linear1", 7 * dim, dim)
        _linear(shapes, f"{block}.linear2", dim, 5 * dim)
        _linear(shapes, f"{block}.modulation.lin", 3 * dim, dim)
        shapes |= {f"{block}.norm.{which}_norm.scale": (head_dim,) for which in ("query", "key")}
    _linear(shapes, "final_layer.linear", 64, dim)
    _linear(shapes, "final_layer.adaLN_modulation.1", 2 * dim, dim)
    return shapes


def _linear(shapes: Shapes, name: str, rows: int, columns: int) -> None:
    shapes |= {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}
