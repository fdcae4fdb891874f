"""What a line of a prompt file says, read to its last letter, without our parser."""

from __future__ import annotations

from typing import Any

import attrs

from musubi.inference.prompt_line import PromptLine

KEYS = {
    "w": "width",
    "h": "height",
    "f": "frame_count",
    "d": "seed",
    "s": "sample_steps",
    "g": "guidance_scale",
    "fs": "discrete_flow_shift",
    "l": "cfg_scale",
    "n": "negative_prompt",
    "i": "image_path",
    "ei": "end_image_path",
    "cn": "control_video_path",
    "ci": "control_image_path",
    "of": "one_frame",
}


def said(line: PromptLine) -> dict[str, Any]:
    """Return what a line says, as the reference's tables do."""
    values = {a.name: getattr(line, a.name) for a in attrs.fields(PromptLine)}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return {name: value for name, value in plain.items() if value not in (None, [])}


def meant(text: str) -> dict[str, Any] | None:
    """Return what the options of a line say, read to their last letter; None if one of them cannot be read so."""
    prompt, *options = text.split(" --")
    values: dict[str, Any] = {"prompt": prompt.strip()}
    for option in options:
        name, _, value = option.partition(" ")
        key = KEYS.get(name.lower())
        if key is None or (key in values and key != "control_image_path"):
            return None
        read = readable(key, value.strip())
        if read is None:
            return None
        values[key] = [*values.get(key, []), read] if key == "control_image_path" else read
    return values


def readable(key: str, text: str) -> Any:
    """Return an option's value; None if the reference reads another one, or none."""
    if key in {"width", "height", "frame_count", "seed", "sample_steps"}:
        return int(text) if text.isascii() and text.isdigit() and (key == "seed" or int(text)) else None
    if key in {"guidance_scale", "discrete_flow_shift", "cfg_scale"}:
        good = text.isascii() and text.replace(".", "", 1).isdigit() and (key != "discrete_flow_shift" or float(text))
        return float(text) if good else None
    return text if text or key == "negative_prompt" else None
