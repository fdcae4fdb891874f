"""umT5 and its tokenizer: captions to embeddings.

Shape suffixes: B batch, L tokens, D width.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import ftfy
import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, UMT5Config, UMT5EncoderModel
from transformers.models.umt5.modeling_umt5 import UMT5DenseGatedActDense

from musubi.architecture import CaptionLengths, Prepare, StoredWeight, WeightHook
from musubi.architectures.wan.detect import Description
from musubi.architectures.wan.facts import TextFacts
from musubi.architectures.wan.fit import expect, legible
from musubi.architectures.wan.keys import UMT5
from musubi.architectures.wan.spec import TEXT_LENGTH
from musubi.embedding.gated import GatedByType
from musubi.weights import tokenizer
from musubi.weights.checkpoint import open_checkpoint
from musubi.weights.load import load_into
from musubi.weights.naming import PREFIXES
from musubi.weights.stored import stored_weights


class TextEncoder(nn.Module):
    """umT5 together with its tokenizer."""

    def __init__(self, encoder: UMT5EncoderModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.encoder = encoder
        self.tokenizer = tokenizer

    def encode(self, captions: Sequence[str]) -> list[Tensor]:
        """Return the embeddings of each caption's own tokens, (L, D) with L <= 512, in the encoder's type.

        Captions are padded to the longest of them, not to 512 as the reference does: what is masked does not count.
        """
        cleaned = [clean_text(caption) for caption in captions]
        tokens = self.tokenizer(
            cleaned, padding="longest", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt"
        )
        return self.embed(tokens.input_ids, tokens.attention_mask)

    @torch.no_grad()
    def embed(self, ids_BL: Tensor, mask_BL: Tensor) -> list[Tensor]:
        """Return the embeddings of tokens, cut to each row's own length."""
        # The last norm's: a matrix may be on the host until its block is used.
        device = self.encoder.encoder.final_layer_norm.weight.device
        mask_BL = mask_BL.to(device)
        hidden_BLD = self.encoder(input_ids=ids_BL.to(device), attention_mask=mask_BL).last_hidden_state
        return [hidden[:length] for hidden, length in zip(hidden_BLD, mask_BL.sum(1).tolist(), strict=True)]


def caption_lengths(tokenizer: PreTrainedTokenizerBase, captions: Sequence[str]) -> CaptionLengths:
    """Count the tokens of captions, the end-of-text token included, before anything is cut off."""
    ids = [tokenizer(clean_text(caption), verbose=False).input_ids for caption in captions]
    return CaptionLengths(tokens=tuple(map(len, ids)), limit=TEXT_LENGTH)


def clean_text(text: str) -> str:
    """Repair broken Unicode, undo HTML escapes (twice, they nest) and make every white space one blank."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text).strip()


def load_text_encoder(
    path: Path,
    words: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    prepare: Prepare | None = None,
    on_weight: WeightHook | None = None,
) -> TextEncoder:
    """Load encoder and tokenizer, frozen; ``prepare`` sees the empty ``TextEncoder``; raises ``WeightsError``."""
    tokens = load_tokenizer(words)

    def prepared(encoder: nn.Module) -> None:
        if prepare is not None:
            prepare(TextEncoder(cast(UMT5EncoderModel, encoder), tokens))

    encoder = load_umt5(path, device=device, dtype=dtype, prepare=prepared, on_weight=on_weight)
    return TextEncoder(encoder, tokens).eval()


def load_umt5(
    path: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    prepare: Prepare | None = None,
    on_weight: WeightHook | None = None,
) -> UMT5EncoderModel:
    """Load the encoder from a file or folder of any layout, frozen; raises ``WeightsError``."""
    with open_checkpoint(path) as checkpoint:
        found = expect(checkpoint, "umt5", component="t5")
        with legible(checkpoint):
            facts = TextFacts.of(found)
        encoder = empty_umt5(facts)
        if prepare is not None:
            prepare(encoder)
        load_into(
            encoder,
            checkpoint,
            keys=UMT5,
            device=device,
            dtype=dtype,
            prefixes=_prefixes(found),
            ignore=("spiece_model", r"decoder\..*", "lm_head.weight"),
            on_weight=on_weight,
        )
    encoder.eval().requires_grad_(False)
    return encoder


def stored_umt5(path: Path) -> Mapping[str, StoredWeight]:
    """Return the matrices that a file holds in 8 bits, by original module; raises ``WeightsError``."""
    with open_checkpoint(path) as checkpoint:
        return stored_weights(checkpoint, UMT5, _prefixes(expect(checkpoint, "umt5", component="t5")))


def _prefixes(found: Description) -> Sequence[str]:
    return (*PREFIXES, "encoder.") if found.original_names else PREFIXES


def empty_umt5(facts: TextFacts) -> UMT5EncoderModel:
    """Build transformers' encoder on the meta device; its eager attention gives the reference's numbers bit for bit."""
    config = UMT5Config(
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
    with init_empty_weights():
        encoder = UMT5EncoderModel(config)
    encoder.set_attn_implementation("eager")
    # On the meta device every parameter is registered anew, which unties the embedding.
    encoder.set_input_embeddings(encoder.shared)
    for module in encoder.modules():
        if type(module) is UMT5DenseGatedActDense:
            module.__class__ = GatedFeedForward
    return encoder


class GatedFeedForward(GatedByType, UMT5DenseGatedActDense):
    """transformers' feed-forward whatever form its weights are kept in."""


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder, or from its ``tokenizer.json``.

    Raises:
        WeightsError: There is no tokenizer, or it has no padding token.
    """
    return tokenizer.load_tokenizer(path, component="tokenizer", pad="<pad>", eos="</s>")
