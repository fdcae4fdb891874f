"""Which prompts a file holds, as the reference's scripts for generation and for training read it.

In training the reference takes an indented comment for a prompt (its own batch mode does not); here it is none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from musubi.core.errors import ConfigError
from musubi.inference.prompt_file import read_prompt_lines
from tests.parity.cases import vector_cases
from tests.parity.prompt_lines import said


@pytest.mark.parametrize("case", vector_cases("infer_prompt_file"), ids=lambda case: str(case["id"]))
def test_infer_prompt_file(case: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / f"prompts.{case['kind']}"
    file.write_text(case["content"], encoding="utf-8")
    if "!error" in case["training_prompts"]:
        with pytest.raises(ConfigError):
            read_prompt_lines(file)
        return

    lines = [said(line) for line in read_prompt_lines(file)]

    if "batch_prompts" in case:
        assert [line["prompt"] for line in lines] == case["batch_prompts"]
    training = [prompt for prompt in case["training_prompts"] if not prompt["prompt"].startswith("#")]
    assert lines == [{name: value for name, value in prompt.items() if name != "enum"} for prompt in training]
