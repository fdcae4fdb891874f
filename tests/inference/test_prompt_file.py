from __future__ import annotations

import json
from pathlib import Path

import pytest

from musubi.core.errors import ConfigError
from musubi.inference.prompt_file import read_prompt_lines, read_prompts
from musubi.inference.prompt_line import PromptLine
from musubi.inference.request import Request
from musubi.noise.embedded import Embedded
from musubi.noise.guidance import ClassifierFree


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def paths(file: Path) -> list[str]:
    """Return the places of all that is wrong with a file, which the error's text names, too."""
    with pytest.raises(ConfigError) as caught:
        read_prompts(file)
    assert file.name in str(caught.value)
    return [issue.path for issue in caught.value.issues]


def test_lines_are_prompts_and_comments_are_passed_over(folder: Path) -> None:
    text = "# what we look at\n\na clay fox --w 64 --h 48 --d 7\r\n   # not this\n  ein Fuchs, größer  \n"

    assert read_prompts(write(folder / "prompts.txt", text)) == (
        Request("a clay fox", size=(64, 48), seed=7),
        Request("ein Fuchs, größer"),
    )


def test_every_problem_of_a_file_is_told_with_its_line(folder: Path) -> None:
    text = "a fox --s ten\n\nfine\nb --unknown 3 --w 10\nc --w 10"

    assert paths(write(folder / "prompts.txt", text)) == [
        "line 1 --s",
        "line 4 --unknown",
        "line 5 --w",
    ]


def test_our_own_form_is_a_list_of_requests(folder: Path) -> None:
    requests = (
        Request("a fox -- in snow", size=(64, 48), shift=3.0, fit="nearest"),
        Request("b", guidance=ClassifierFree(scale=2.0), negative="grey", seed=None),
    )
    tables = {"prompts": [request.to_dict() for request in requests]}
    by_hand = '[[prompts]]\nprompt = "a"\nsize = [64, 48]\nfps = 8\n'

    assert read_prompts(write(folder / "prompts.json", json.dumps(tables))) == requests
    assert read_prompts(write(folder / "prompts.toml", by_hand)) == (Request("a", size=(64, 48), fps=8.0),)


def test_the_tables_of_the_reference_share_what_stands_above_them(folder: Path) -> None:
    text = """
    [prompt]
    width = 256
    height = 128
    sample_steps = 10
    [[prompt.subset]]
    prompt = "a cat"
    seed = 1
    [[prompt.subset]]
    prompt = "a dog"
    cfg_scale = 3
    """

    assert read_prompts(write(folder / "prompts.toml", text)) == (
        Request("a cat", size=(256, 128), steps=10, seed=1),
        Request("a dog", size=(256, 128), steps=10, guidance=3.0),
    )


def test_a_json_list_mixes_lines_and_tables(folder: Path) -> None:
    text = json.dumps(["x --d 5", {"prompt": "y", "sample_steps": 3, "enum": 9}])

    assert read_prompts(write(folder / "prompts.json", text)) == (Request("x", seed=5), Request("y", steps=3))


def test_pictures_that_a_line_shows_are_the_requests(folder: Path) -> None:
    file = write(folder / "prompts.txt", "edit it --ci a.png --ci b.png")

    assert read_prompt_lines(file) == (PromptLine("edit it", control_image_path=("a.png", "b.png")),)
    assert read_prompts(file) == (Request("edit it", control=["a.png", "b.png"]),)


def test_guidance_as_an_input_is_a_rule_of_its_own(folder: Path) -> None:
    file = write(folder / "prompts.txt", "a fox --g 6")

    assert read_prompt_lines(file) == (PromptLine("a fox", guidance_scale=6.0),)
    assert read_prompts(file) == (Request("a fox", guidance=Embedded(scale=6.0)),)


def test_places_in_time_that_make_no_sense_are_told_with_their_line(folder: Path) -> None:
    assert paths(write(folder / "prompts.txt", "a\nb --ci a.png --of target_index=x")) == ["line 2 --of"]


@pytest.mark.parametrize(
    ("name", "text", "places"),
    [
        (
            "p.toml",
            '[[prompts]]\nprompt = "a"\nstepz = 3\n[[prompts]]\nprompt = "b"\nframes = 0',
            ["prompts[0].stepz", "prompts[1].frames"],
        ),
        ("p.toml", '[prompt]\nwidht = 3\n[[prompt.subset]]\nprompt = "a"', ["prompt.subset[0].widht"]),
        ("p.toml", '[prompt]\nseed = 3\n[[prompt.subset]]\nprompt = "a"\nseed = 4', ["prompt.subset[0].seed"]),
        ("p.toml", '[promt]\nprompt = "a"', ["promt"]),
        ("p.toml", '[[prompts]]\nprompt = "a"\n[prompt]\nseed = 1', ["prompt"]),
        ("p.toml", '[prompts]\nprompt = "a"', ["prompts"]),
        ("p.toml", "prompt = 3", ["prompt"]),
        ("p.toml", "[prompt\n", [""]),
        ("p.json", "[1, {}]", ["[0]"]),
        ("p.json", '["a --x 1", {"prompt": "b", "width": "64"}]', ["[0] --x", "[1].width"]),
        ("p.json", "3", [""]),
        ("p.json", "{", [""]),
        ("p.txt", "# nothing\n\n", [""]),
        ("p.toml", "", [""]),
        ("p.md", "a fox", [""]),
        ("p", "a fox", [""]),
    ],
)
def test_a_file_that_is_not_understood_is_refused_where_it_fails(
    name: str, text: str, places: list[str], folder: Path
) -> None:
    assert paths(write(folder / name, text)) == places


def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "latin.txt").write_bytes("größer".encode("latin-1"))

    with pytest.raises(ConfigError, match=r"gone\.txt: No such file"):
        read_prompts(folder / "gone.txt")
    with pytest.raises(ConfigError, match=r"latin\.txt: is not UTF-8 text \(hint: save the file as UTF-8"):
        read_prompts(folder / "latin.txt")
