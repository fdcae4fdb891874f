"""T5-XXL and its tokenizer: prompts to embeddings.

Shape suffixes: B batch, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, T5Config, T5EncoderModel
from transformers.models.t5.modeling_t5 import T5DenseGatedActDense

from musubi.architecture import CaptionLengths, Prepare, StoredWeight, WeightHook
from musubi.architectures.flux_kontext.text_facts import T5_PREFIXES, T5_TOKENS, T5_UNUSED, T5Facts
from musubi.embedding.gated import GatedByType
from musubi.keymap import KeyMap
from musubi.weights import tokenizer
from musubi.weights.checkpoint import open_checkpoint
from musubi.weights.load import load_into
from musubi.weights.stored import stored_weights

_KEYS = KeyMap(())
"""The file's names are the library's."""

_EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight")


class T5(nn.Module):
    """A T5 encoder together with its tokenizer."""

    def __init__(self, encoder: T5EncoderModel, tokens: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.encoder = encoder
        self.tokenizer = tokens

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Return the embeddings (B, 512, D) of prompts, filled up to 512 tokens, in the encoder's type."""
        tokens = self.tokenizer(
            list(prompts), padding="max_length", max_length=T5_TOKENS, truncation=True, return_tensors="pt"
        )
        return self.embed(cast(Tensor, tokens.input_ids))

    @torch.no_grad()
    def embed(self, ids_BL: Tensor) -> Tensor:
        """Return the embeddings (B, L, D) of tokens, all of which see all: FLUX.1 was trained with no mask."""
        # The last norm's: a matrix may be on the host until its block is used.
        device = self.encoder.encoder.final_layer_norm.weight.device
        states: Tensor = self.encoder(input_ids=ids_BL.to(device)).last_hidden_state
        return states


def caption_lengths(tokens: PreTrainedTokenizerBase, captions: Sequence[str]) -> CaptionLengths:
    """Count the tokens of captions, the end-of-text token included, before anything is cut off."""
    ids = [tokens(caption, verbose=False).input_ids for caption in captions]
    return CaptionLengths(tokens=tuple(map(len, ids)), limit=T5_TOKENS)


def load_t5(
    path: Path,
    words: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    prepare: Prepare | None = None,
    on_weight: WeightHook | None = None,
) -> T5:
    """Load encoder and tokenizer, frozen; ``prepare`` sees the empty ``T5``; raises ``WeightsError``."""
    tokens = load_tokenizer(words)

    def prepared(encoder: nn.Module) -> None:
        if prepare is not None:
            prepare(T5(cast(T5EncoderModel, encoder), tokens))

    encoder = load_t5_encoder(path, device=device, dtype=dtype, prepare=prepared, on_weight=on_weight)
    return T5(encoder, tokens).eval()


def load_t5_encoder(
    path: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    prepare: Prepare | None = None,
    on_weight: WeightHook | None = None,
) -> T5EncoderModel:
    """Load the encoder from a file or folder of any layout, frozen; raises ``WeightsError``."""
    with open_checkpoint(path) as checkpoint:
        facts = T5Facts.of(checkpoint)
        encoder = empty_t5(facts)
        if prepare is not None:
            prepare(encoder)
        load_into(
            encoder,
            checkpoint,
            keys=_KEYS,
            device=device,
            dtype=dtype,
            prefixes=T5_PREFIXES,
            # The embedding again, where the file holds it twice.
            ignore=(*T5_UNUSED, *(name for name in _EMBEDDINGS if name != facts.embedding)),
            on_weight=on_weight,
        )
    encoder.eval().requires_grad_(False)
    return encoder


def stored_t5(path: Path) -> Mapping[str, StoredWeight]:
    """Return the matrices that a file holds in 8 bits, by original module; raises ``WeightsError``."""
    with open_checkpoint(path) as checkpoint:
        T5Facts.of(checkpoint)
        return stored_weights(checkpoint, _KEYS, T5_PREFIXES)


def empty_t5(facts: T5Facts) -> T5EncoderModel:
    """Build transformers' encoder on the meta device."""
    config = T5Config(
        vocab_size=facts.vocabulary,
        d_model=facts.dim,
        d_kv=facts.head_dim,
        d_ff=facts.ffn_dim,
        num_heads=facts.num_heads,
        num_layers=facts.num_layers,
        relative_attention_num_buckets=facts.num_buckets,
        relative_attention_max_distance=128,
        layer_norm_epsilon=1e-6,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
    )
    with torch.random.fork_rng(devices=[]), init_empty_weights():
        encoder = T5EncoderModel(config)
    encoder.set_attn_implementation("eager")
    # On the meta device every parameter is registered anew, which unties the embedding.
    encoder.set_input_embeddings(encoder.shared)
    for module in encoder.modules():
        if type(module) is T5DenseGatedActDense:
            module.__class__ = GatedFeedForward
    return encoder


class GatedFeedForward(GatedByType, T5DenseGatedActDense):
    """transformers' feed-forward whatever form its weights are kept in."""


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Load T5's tokenizer from a folder, or from its ``tokenizer.json``; raises ``WeightsError``."""
    return tokenizer.load_tokenizer(path, component="t5_tokenizer", pad="<pad>", eos="</s>")
