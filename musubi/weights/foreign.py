"""Quantised checkpoints that are not read, told from those that are: by names, and by what they say of themselves.

ComfyUI writes the format of each weight into ``X.comfy_quant`` (a JSON text in bytes) or that of all into the metadata.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from musubi.core.errors import Issue, WeightsError

if TYPE_CHECKING:
    from musubi.weights.checkpoint import Checkpoint

_HINT = "use the bf16, fp16, fp8 or plain int8 version of these weights; musubi quantises weights while loading them"

_NAMES = re.compile(
    r"(.*\.)?(weight_scale_\w+|pre_quant_scale|weight_s_\w+|weight_codebook|svd_\w+|qweight|qzeros|wscales|wzeros"
    r"|weight\.(absmax|quant_map|nested_\w+|quant_state\..+))"
)
"""Tensors of other formats: second scales (NVFP4), smoothing, side branches (SVDQuant), bitsandbytes, GPTQ."""

_FORMATS = frozenset({"float8_e4m3fn", "float8_e5m2", "int8_tensorwise"})
_HARMLESS = frozenset(
    {"format", "full_precision_matrix_mult", "per_row", "per_channel", "orig_dtype", "orig_shape", "convrot_groupsize"}
)
"""What may be said of a weight without changing its numbers; the last means nothing without ``convrot``."""

_METADATA = "_quantization_metadata"


def refuse_foreign(checkpoint: Checkpoint) -> None:
    """Raise ``WeightsError`` if the weights are quantised in a way that is not read (NVFP4, rotated, SVDQuant, ...)."""
    found = next(_foreign(checkpoint), None)
    if found is not None:
        message = f"is quantised in a way that is not supported ({found})"
        raise WeightsError("quantised weights", [Issue(checkpoint.label, message, _HINT)])


def _foreign(checkpoint: Checkpoint) -> Iterator[str]:
    for name in checkpoint.names():
        if _NAMES.fullmatch(name):
            yield name
    for name in checkpoint.names():
        if name.endswith(".comfy_quant"):
            told = _parsed(bytes(byte % 256 for byte in checkpoint.read(name).flatten().tolist()))
            yield from (f"{name}: {what}" for what in _unread(told))
    if _METADATA in checkpoint.metadata:
        told = _parsed(checkpoint.metadata[_METADATA])
        layers = told.get("layers") if isinstance(told, dict) else None
        for name, layer in (layers if isinstance(layers, dict) else {"metadata": told}).items():
            yield from (f"{name}: {what}" for what in _unread(layer))


def _unread(told: object) -> Iterator[str]:
    """Yield what a description of a weight asks for beyond 8 bits times a scale."""
    if not isinstance(told, dict):
        yield "a description that cannot be read"
        return
    if str(told.get("format")) not in _FORMATS:
        yield f"format {told.get('format')}"
    yield from (f"{key} {value}" for key, value in told.items() if key not in _HARMLESS and value)


def _parsed(text: str | bytes) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
