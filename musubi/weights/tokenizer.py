"""Tokenizers from folders and files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from musubi.core.errors import Issue, WeightsError, shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(path: Path, *, component: str, pad: str, eos: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder, or from its ``tokenizer.json``; it fills up on the right.

    Args:
        path: The folder or file.
        component: What messages call it.
        pad: The padding token, which ``tokenizer.json`` alone does not tell.
        eos: The token at the end, likewise.

    Raises:
        WeightsError: There is no tokenizer.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    tokenizer: PreTrainedTokenizerBase
    try:
        if path.is_file():
            tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path), pad_token=pad, eos_token=eos)
        elif (path / "tokenizer.json").is_file():
            # The generic class takes the file as it is; a class of a model may rebuild it, with other ids.
            tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
        else:
            tokenizer = AutoTokenizer.from_pretrained(path)
    except Exception as error:  # the tokenizers library raises bare Exception
        problem = Issue(shown(path), f"holds no tokenizer ({type(error).__name__})", f"choose it with {component}=...")
        raise WeightsError("tokenizer cannot be read", [problem]) from error
    tokenizer.padding_side = "right"
    return tokenizer
