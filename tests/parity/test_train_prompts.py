"""Sample prompts and when they are drawn, as the reference reads and decides.

The reference takes the prompt itself for an option, cuts numbers off where they stop being numbers, and passes over
what it does not know; such a line is refused here, or the prompt kept as it stands. Of a file it takes an indented
comment for a prompt. A limit of 1000 steps, to which the reference lowers what is above, does not exist here; nor does
it matter here how many blanks stand before a value.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from musubi.core.errors import ConfigError
from musubi.inference.prompt_file import read_prompt_lines
from musubi.inference.prompt_line import PromptLine
from musubi.training.sampling_due import sampling_due
from tests.parity.cases import vector_cases
from tests.parity.prompt_lines import meant, said

CASES = vector_cases("train_prompts")
LIMIT = 1000


def of_kind(kind: str) -> pytest.MarkDecorator:
    cases = [case for case in CASES if case["kind"] == kind]
    return pytest.mark.parametrize("case", cases, ids=[case["id"] for case in cases])


def lowered(values: dict[str, Any]) -> dict[str, Any]:
    return {**values, "sample_steps": min(LIMIT, values["sample_steps"])} if "sample_steps" in values else values


def check_line(text: str, reference: dict[str, Any]) -> None:
    expected = meant(text)
    if expected is None:
        with pytest.raises(ConfigError):
            PromptLine.parse(text)
        return
    found = said(PromptLine.parse(text))
    assert found == expected
    if "  " in text:  # behind two blanks the reference reads no number
        return
    own = {key: reference[key] for key in expected if key in reference}  # not what it took out of the prompt
    assert lowered(found) == lowered({**found, **stripped(own)})


def stripped(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value.strip() if isinstance(value, str) else value for key, value in values.items()}


@of_kind("line_to_prompt_dict")
def test_train_prompts_lines(case: dict[str, Any]) -> None:
    check_line(case["line"], case["result"])


def entries(case: dict[str, Any]) -> list[str | dict[str, Any]] | None:
    """Return the lines and tables of a file, None of a form that takes another way."""
    if case["file"].endswith(".txt"):
        return [line.strip() for line in case["text"].split("\n") if line.strip() and line[0] != "#"]
    return list(json.loads(case["text"])) if case["file"].endswith(".json") else None


def strict(table: dict[str, Any]) -> bool:
    """Return whether a table of the reference's is one here, too."""
    try:
        PromptLine.from_dict({key: value for key, value in table.items() if key != "enum"})
    except ConfigError:
        return False
    return True


@of_kind("load_prompts")
def test_train_prompts_files(case: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / case["file"]
    file.write_text(case["text"], encoding="utf-8")
    listed = None if isinstance(case["result"], str) else entries(case)
    unreadable = [one for one in listed or [] if isinstance(one, str) and not one.startswith("#") and not meant(one)]
    if isinstance(case["result"], str) or unreadable or not all(map(strict, case["result"])):
        with pytest.raises(ConfigError):
            read_prompt_lines(file)
        return

    lines = [said(line) for line in read_prompt_lines(file)]

    expected = [result for result in case["result"] if not result["prompt"].startswith("#")]
    assert len(lines) == len(expected)
    for line, result in zip(lines, expected, strict=True):
        own = {key: value for key, value in stripped(result).items() if key in line}
        assert {**line, "sample_steps": min(LIMIT, line.get("sample_steps", 1))} == {"sample_steps": 1, **own}
        assert listed is not None or line == {k: v for k, v in result.items() if k != "enum"}


@of_kind("should_sample")
def test_train_prompts_when_to_sample(case: dict[str, Any]) -> None:
    due = sampling_due(
        case["step"],
        [] if case["epoch"] is None else [case["epoch"]],
        at_first=case["sample_at_first"],
        every=case["sample_every_n_steps"],
        every_epochs=case["sample_every_n_epochs"],
    )

    assert due == case["result"]
