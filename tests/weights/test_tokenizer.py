from __future__ import annotations

from pathlib import Path

import pytest

from musubi.core.errors import WeightsError
from musubi.testing.checkpoints import tiny_tokenizer
from musubi.weights.tokenizer import load_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_tokenizer().save_pretrained(tmp_path)
    return tmp_path


def test_a_folder_and_its_one_file_say_the_same(folder: Path) -> None:
    whole = load_tokenizer(folder, component="t5_tokenizer", pad="<pad>", eos="</s>")
    alone = load_tokenizer(folder / "tokenizer.json", component="t5_tokenizer", pad="<pad>", eos="</s>")

    for tokenizer in (whole, alone):
        tokens = tokenizer(["a fox", "a"], padding=True)
        assert tokens.input_ids == whole(["a fox", "a"], padding=True).input_ids
        assert tokens.attention_mask[1][-1] == 0, "it fills up on the right"


@pytest.mark.parametrize("content", [None, "{"])
def test_what_holds_no_tokenizer_is_named_with_the_way_out(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "words"
    path.mkdir()
    if content is not None:
        (path / "tokenizer.json").write_text(content, encoding="utf-8")

    with pytest.raises(WeightsError, match=r"words: holds no tokenizer.*choose it with t5_tokenizer=\.\.\."):
        load_tokenizer(path, component="t5_tokenizer", pad="<pad>", eos="</s>")
