"""CLIP-L's text encoder and its tokenizer: prompts to one vector each.

Shape suffixes: B batch, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerBase

from musubi.architectures.flux_kontext.text_facts import CLIP_PREFIXES, CLIP_UNUSED, ClipFacts
from musubi.keymap import KeyMap
from musubi.weights import tokenizer
from musubi.weights.checkpoint import open_checkpoint
from musubi.weights.load import load_into

_LARGEST_ID = 2
"""A token at the end that tells transformers to take the state at the largest id, as CLIP was published."""


class ClipL(nn.Module):
    """CLIP's text encoder together with its tokenizer."""

    def __init__(self, encoder: CLIPTextModel, tokens: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.encoder = encoder
        self.tokenizer = tokens

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Return one vector (B, D) for each prompt, of which the first 77 tokens are read, in the encoder's type."""
        limit = self.encoder.config.max_position_embeddings
        tokens = self.tokenizer(
            list(prompts), padding="max_length", max_length=limit, truncation=True, return_tensors="pt"
        )
        return self.embed(cast(Tensor, tokens.input_ids))

    @torch.no_grad()
    def embed(self, ids_BL: Tensor) -> Tensor:
        """Return the state (B, D) at the end of each text."""
        pooled: Tensor = self.encoder(input_ids=ids_BL.to(self.encoder.device)).pooler_output
        return pooled


def load_clip(path: Path, words: Path, *, device: torch.device, dtype: torch.dtype) -> ClipL:
    """Load encoder and tokenizer, frozen; raises ``WeightsError``."""
    return ClipL(load_clip_encoder(path, device=device, dtype=dtype), load_tokenizer(words)).eval()


def load_clip_encoder(path: Path, *, device: torch.device, dtype: torch.dtype) -> CLIPTextModel:
    """Load the encoder from a file or folder of any layout, frozen; raises ``WeightsError``."""
    with open_checkpoint(path) as checkpoint:
        encoder = empty_clip(ClipFacts.of(checkpoint))
        load_into(
            encoder,
            checkpoint,
            keys=KeyMap(()),
            device=device,
            dtype=dtype,
            prefixes=CLIP_PREFIXES,
            ignore=CLIP_UNUSED,
        )
    encoder.eval().requires_grad_(False)
    return encoder


def empty_clip(facts: ClipFacts) -> CLIPTextModel:
    """Build transformers' encoder on the meta device, with the quick activation that CLIP-L was trained with."""
    config = CLIPTextConfig(
        vocab_size=facts.vocabulary,
        hidden_size=facts.dim,
        intermediate_size=facts.ffn_dim,
        num_attention_heads=facts.num_heads,
        num_hidden_layers=facts.num_layers,
        max_position_embeddings=facts.num_tokens,
        hidden_act="quick_gelu",
        layer_norm_eps=1e-5,
        bos_token_id=0,
        eos_token_id=_LARGEST_ID,
    )
    with torch.random.fork_rng(devices=[]), init_empty_weights():
        encoder = CLIPTextModel(config)
    encoder.set_attn_implementation("sdpa")
    return encoder


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Load CLIP's tokenizer from a folder, or from its ``tokenizer.json``; raises ``WeightsError``."""
    end = "<|endoftext|>"
    return tokenizer.load_tokenizer(path, component="clip_l_tokenizer", pad=end, eos=end)
