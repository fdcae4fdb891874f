"""Build the tiny UMT5 encoder and its tokenizer: whole caption words, single characters for every other word."""

from __future__ import annotations

import string
from collections.abc import Sequence
from functools import cache

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from musubi.quickstart import shapes

TEXT_LENGTH = 512
WIDTH = 96


@cache
def new_tokenizer() -> PreTrainedTokenizerFast:
    """Build a unigram tokenizer of the captions' words that ends every text with </s>; padding is token 0."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(f"▁{word}", -3.0) for word in _words()]
    pieces += [(character, -10.0) for character in ["▁", *string.ascii_lowercase, *string.ascii_uppercase]]
    pieces += [(character, -10.0) for character in string.digits + string.punctuation]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=TEXT_LENGTH,
    )


def new_encoder() -> UMT5EncoderModel:
    """Build the text encoder: 2 layers, 3 heads, 96 wide."""
    config = UMT5Config(
        vocab_size=-(-len(new_tokenizer()) // 8) * 8,
        d_model=WIDTH,
        d_kv=32,
        num_heads=3,
        d_ff=192,
        num_layers=2,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        relative_attention_num_buckets=32,
        relative_attention_max_distance=128,
    )
    config._attn_implementation = "eager"  # pyright: ignore[reportPrivateUsage] - the constructor's signature hides it
    return UMT5EncoderModel(config)


def encode_captions(encoder: UMT5EncoderModel, captions: Sequence[str]) -> Tensor:
    """Encode captions and zero what is beyond each one's end, as (captions, longest + 1, WIDTH).

    The last place is zero for every caption: it stands for all padding up to TEXT_LENGTH (see `PaddingAttention`).
    """
    tokens = new_tokenizer()(list(captions), padding=True, return_tensors="pt").to(encoder.device)
    hidden = encoder(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
    hidden = hidden * tokens.attention_mask.unsqueeze(-1)
    return torch.cat([hidden, hidden.new_zeros(len(hidden), 1, hidden.shape[-1])], dim=1)


def _words() -> list[str]:
    captions = [scene.caption for scene in shapes.scenes(motions=["", *shapes.MOTIONS])]
    return sorted({word for caption in captions for word in caption.split()})
