"""Options of a prompt line, as Wan's generation script of the reference reads them.

It passes over options that it does not know and ones in capitals, and takes the text behind stray dashes away; such
lines are refused here. ``--g`` and ``--l`` both set the scale of classifier-free guidance there, the later one wins;
here ``--g`` is the guidance that some models have as an input, as in the reference's own files for training.
"""

from __future__ import annotations

from typing import Any

import pytest

from musubi.core.errors import ConfigError
from musubi.inference.prompt_line import PromptLine
from tests.parity.cases import vector_cases
from tests.parity.prompt_lines import meant, said

NAMES = {
    "prompt": "prompt",
    "video_size_width": "width",
    "video_size_height": "height",
    "video_length": "frame_count",
    "seed": "seed",
    "infer_steps": "sample_steps",
    "flow_shift": "discrete_flow_shift",
    "negative_prompt": "negative_prompt",
    "image_path": "image_path",
    "end_image_path": "end_image_path",
    "control_path": "control_video_path",
    "control_image_path": "control_image_path",
    "one_frame_inference": "one_frame",
}


@pytest.mark.parametrize("case", vector_cases("infer_prompt_line"), ids=lambda case: str(case["id"]))
def test_infer_prompt_line(case: dict[str, Any]) -> None:
    expected, reference = meant(case["line"]), case["wan"]
    if expected is None or "!error" in reference:
        with pytest.raises(ConfigError):
            PromptLine.parse(case["line"])
        return

    found = said(PromptLine.parse(case["line"]))

    assert found == expected
    options = [option.partition(" ")[0] for option in case["line"].split(" --")[1:]]
    if any(option != option.lower() for option in options):
        return
    scales = [option for option in options if option in {"g", "l"}]
    if scales:
        assert found.pop({"g": "guidance_scale", "l": "cfg_scale"}[scales[-1]]) == reference["guidance_scale"]
    rest = {name: value for name, value in found.items() if name not in {"guidance_scale", "cfg_scale"}}
    assert rest == {NAMES[name]: value for name, value in reference.items() if name != "guidance_scale"}
