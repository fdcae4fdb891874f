from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from musubi.architecture import CaptionLengths
from musubi.architectures.wan.spec import Wan
from musubi.architectures.wan.text import (
    TextEncoder,
    caption_lengths,
    clean_text,
    load_text_encoder,
    load_tokenizer,
    load_umt5,
)
from musubi.core.errors import WeightsError
from musubi.weights.checkpoint import open_checkpoint
from tests.parity.cases import golden, part

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def text(tiny: Wan) -> TextEncoder:
    return load_text_encoder(
        tiny.weight("t5").resolve(), tiny.weight("tokenizer").resolve(), device=CPU, dtype=torch.float32
    )


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  leading  spaces\nnew line\t", "leading spaces new line"),
        ("a &amp;lt;b&amp;gt; c", "a <b> c"),
        ("“curly” ’quotes’", "\"curly\" 'quotes'"),  # noqa: RUF001
        ("sch√∂n", "schön"),
        ("", ""),
    ],
)
def test_text_is_cleaned_as_the_authors_do(raw: str, clean: str) -> None:
    assert clean_text(raw) == clean


def test_embeddings_are_as_long_as_the_caption_and_its_end(text: TextEncoder) -> None:
    embeddings = text.encode(["a cat", "", "a much longer caption"])

    lengths = caption_lengths(text.tokenizer, ["a cat", "", "a much longer caption"])
    assert [tuple(e.shape) for e in embeddings] == [(tokens, 32) for tokens in lengths.tokens]
    assert lengths.tokens[1] == 1


def test_a_long_caption_is_cut_at_512_tokens(text: TextEncoder) -> None:
    caption = "x" * 600

    assert caption_lengths(text.tokenizer, [caption]) == CaptionLengths(tokens=(602,), limit=512)
    assert text.encode([caption])[0].shape == (512, 32)


def test_padding_does_not_count(text: TextEncoder) -> None:
    short, long = "a cat", "x" * 600

    together = text.encode([long, short, long])

    torch.testing.assert_close(together[1], text.encode([short])[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(together[2], text.encode([long])[0], rtol=0, atol=1e-5)
    padded = text.tokenizer(clean_text(short), padding="max_length", max_length=512, return_tensors="pt")
    as_published = text.embed(padded.input_ids, padded.attention_mask)[0]
    torch.testing.assert_close(together[1], as_published, rtol=0, atol=1e-5)


def test_the_embedding_is_tied_and_nothing_stays_empty(text: TextEncoder) -> None:
    encoder = text.encoder

    assert encoder.encoder.embed_tokens.weight is encoder.shared.weight
    assert not any(parameter.is_meta or parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.parametrize("tied", ["shared.weight", "encoder.embed_tokens.weight", "both"])
def test_files_in_the_names_of_transformers_load_whatever_they_call_the_embedding(tied: str, tmp_path: Path) -> None:
    _, tensors = golden("models_wan_umt5")
    save_file(part(tensors, "ckpt."), tmp_path / "original.safetensors")
    reference = load_umt5(tmp_path / "original.safetensors", device=CPU, dtype=torch.float32)
    library = {name: value.clone() for name, value in reference.state_dict().items()}
    library["spiece_model"] = torch.zeros(7, dtype=torch.uint8)
    if tied != "both":
        library = {n: v for n, v in library.items() if n == tied or not n.endswith(("shared.weight", "tokens.weight"))}
    save_file(library, tmp_path / "library.safetensors")

    encoder = load_umt5(tmp_path / "library.safetensors", device=CPU, dtype=torch.float32)

    for name, value in encoder.state_dict().items():
        assert torch.equal(value, reference.state_dict()[name]), name


def test_a_tokenizer_loads_from_its_folder_or_its_file(tiny: Wan) -> None:
    folder = tiny.weight("tokenizer").resolve()

    ids = [load_tokenizer(path)("a cat").input_ids for path in (folder, folder / "tokenizer.json")]

    assert ids[0] == ids[1]
    assert ids[0][-1] == 1


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").touch()

    with pytest.raises(WeightsError, match="holds no tokenizer") as caught:
        load_tokenizer(tmp_path)

    assert tmp_path.name in str(caught.value)


def test_the_tiny_file_holds_only_what_the_encoder_has(tiny: Wan, text: TextEncoder) -> None:
    with open_checkpoint(tiny.weight("t5").resolve()) as checkpoint:
        assert len(checkpoint.names()) == len(list(text.encoder.parameters()))
