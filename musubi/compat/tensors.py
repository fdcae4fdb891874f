"""Which tensors the reference's cache files hold, by architecture."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

LATENTS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "fp": frozenset({"latents", "latents_clean", "latent_indices", "clean_latent_indices", "image_embeddings"}),
        "fk": frozenset({"latents", "latents_control"}),
    }
)
"""What a latent file must hold, by the architecture's short name; of others just ``latents``."""

TEXT: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "hv": frozenset({"llm", "llm_mask", "clipL", "clipL_mask"}),
        "wan": frozenset({"varlen_t5"}),
        "fp": frozenset({"llama_vec", "llama_attention_mask", "clip_l_pooler"}),
        "fk": frozenset({"t5_vec", "clip_l_pooler"}),
        "qi": frozenset({"varlen_vl_embed"}),
        "qie": frozenset({"varlen_vl_embed"}),
    }
)
"""What a text file must hold; HunyuanVideo's two encoders write one after the other, so one may be missing."""


def lacking(found: Mapping[str, object], *, architecture: str, text: bool) -> tuple[str, ...]:
    """Return the names of the tensors that a file should hold and does not.

    Example:
        >>> from musubi.compat.tensors import lacking
        >>> lacking({"llm": 0, "llm_mask": 0}, architecture="hv", text=True)
        ('clipL', 'clipL_mask')
    """
    wanted = TEXT.get(architecture, frozenset()) if text else LATENTS.get(architecture, frozenset({"latents"}))
    return tuple(sorted(wanted - found.keys()))
