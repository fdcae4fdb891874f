"""Names and shapes of HunyuanVideo's checkpoints, written out from the model's definition and not by our own table."""

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
    inputs: int = 16,
    text: int = 4096,
    pooled: int = 768,
    guided: bool = True,
) -> Shapes:
    """Return what is in a transformer's original checkpoint."""
    shapes: Shapes = {"img_in.proj.weight": (dim, inputs, 1, 2, 2), "img_in.proj.bias": (dim,)}
    _refiner(shapes, dim, refiner, text)
    for name in ("time_in", *(("guidance_in",) if guided else ())):
        _linear(shapes, f"{name}.mlp.0", dim, 256)
        _linear(shapes, f"{name}.mlp.2", dim, dim)
    _linear(shapes, "vector_in.in_layer", dim, pooled)
    _linear(shapes, "vector_in.out_layer", dim, dim)
    for block in (f"double_blocks.{i}" for i in range(double)):
        for stream in ("img", "txt"):
            _linear(shapes, f"{block}.{stream}_mod.linear", 6 * dim, dim)
            _linear(shapes, f"{block}.{stream}_attn_qkv", 3 * dim, dim)
            _linear(shapes, f"{block}.{stream}_attn_proj", dim, dim)
            _linear(shapes, f"{block}.{stream}_mlp.fc1", mlp, dim)
            _linear(shapes, f"{block}.{stream}_mlp.fc2", dim, mlp)
            shapes |= {f"{block}.{stream}_attn_{which}_norm.weight": (head_dim,) for which in "qk"}
    for block in (f"single_blocks.{i}" for i in range(single)):
        _linear(shapes, f"{block}.linear1", 3 * dim + mlp, dim)
        _linear(shapes, f"{block}.linear2", dim, dim + mlp)
        _linear(shapes, f"{block}.modulation.linear", 3 * dim, dim)
        shapes |= {f"{block}.{which}_norm.weight": (head_dim,) for which in "qk"}
    _linear(shapes, "final_layer.linear", 64, dim)
    _linear(shapes, "final_layer.adaLN_modulation.1", 2 * dim, dim)
    return shapes


def _refiner(shapes: Shapes, dim: int, depth: int, text: int) -> None:
    _linear(shapes, "txt_in.input_embedder", dim, text)
    _linear(shapes, "txt_in.t_embedder.mlp.0", dim, 256)
    _linear(shapes, "txt_in.t_embedder.mlp.2", dim, dim)
    _linear(shapes, "txt_in.c_embedder.linear_1", dim, text)
    _linear(shapes, "txt_in.c_embedder.linear_2", dim, dim)
    for block in (f"txt_in.individual_token_refiner.blocks.{i}" for i in range(depth)):
        shapes |= {f"{block}.{norm}.{leaf}": (dim,) for norm in ("norm1", "norm2") for leaf in ("weight", "bias")}
        _linear(shapes, f"{block}.self_attn_qkv", 3 * dim, dim)
        _linear(shapes, f"{block}.self_attn_proj", dim, dim)
        _linear(shapes, f"{block}.mlp.fc1", 4 * dim, dim)
        _linear(shapes, f"{block}.mlp.fc2", dim, 4 * dim)
        _linear(shapes, f"{block}.adaLN_modulation.1", 2 * dim, dim)


def _linear(shapes: Shapes, name: str, rows: int, columns: int) -> None:
    shapes |= {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}
