"""The sections of FramePack's clips: their files, latents and positions, equal to the reference's caches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from musubi.architectures.framepack.sections import Section, forward_sections, inverted_sections, used_frames
from musubi.cache.format import SUFFIX, content_name, latent_label
from musubi.data.sample import Window
from tests.parity.cases import vector, vector_cases, vector_stems

SIZE = (16, 16)
FILES = [vector(stem) for stem in vector_stems("data_framepack_sections")]
EXAMPLES = [file["tensor_keys_example_16x16"] for file in FILES if "tensor_keys_example_16x16" in file]


def sections(case: dict[str, Any]) -> list[Section]:
    """Return the sections of latents whose values are the numbers of their frames, from 1: blank ones hold 0."""
    window = case["latent_window_size"]
    latents = (used_frames(case["frame_count"], window=window) - 1) // 4 + 1
    numbers = (torch.arange(latents) + 1).half().view(1, -1, 1, 1).expand(16, -1, 2, 2)
    return (forward_sections if case["f1"] else inverted_sections)(numbers, window=window)


def frames(latents: Tensor | None) -> list[int]:
    """Return which frame lies at each place, -1 for blank ones."""
    assert latents is not None
    return [int(number) - 1 for number in latents[0, :, 0, 0]]


def positions(indices: Tensor | None) -> list[int]:
    assert indices is not None
    return [int(index) for index in indices]


def label(case: dict[str, Any], part: int) -> str:
    return latent_label("clip", size=SIZE, suffix="fp", window=Window(0, case["frame_count"]), part=part) + SUFFIX


def name(case: dict[str, Any]) -> str:
    return f"{case['latent_window_size']}-{case['frame_count']}-{'f1' if case['f1'] else 'inverted'}"


@pytest.mark.parametrize("case", vector_cases("data_framepack_sections"), ids=name)
def test_data_framepack_sections(case: dict[str, Any]) -> None:
    if case["sections"] == "error:ValueError":
        with pytest.raises(ValueError, match="a section takes"):
            sections(case)
        return

    made = sections(case)

    assert len(made) == len(case["sections"])
    for expected in case["sections"]:
        section = made[expected["i"]]
        assert {"i": expected["i"], "file": label(case, expected["i"]), **described(section)} == expected


def described(section: Section) -> dict[str, list[int]]:
    return {
        "target": frames(section.latents),
        "target_idx": positions(section.latent_indices),
        "clean": frames(section.latents_clean),
        "clean_idx": positions(section.clean_latent_indices),
        "clean2x": frames(section.latents_clean_2x),
        "clean2x_idx": positions(section.clean_latent_2x_indices),
        "clean4x": frames(section.latents_clean_4x),
        "clean4x_idx": positions(section.clean_latent_4x_indices),
    }


@pytest.mark.parametrize("example", EXAMPLES)
def test_data_framepack_sections_tensors_have_the_reference_names(example: dict[str, tuple[str, list[int]]]) -> None:
    section = sections({"latent_window_size": 9, "frame_count": 37, "f1": False})[0]

    expected = {content_name(key): (dtype, shape) for key, (dtype, shape) in example.items()}
    del expected["image_embeddings"]  # what SigLIP sees of the first frame, no part of the layout
    assert {name: (str(t.dtype), list(t.shape)) for name, t in section.tensors.items()} == expected
