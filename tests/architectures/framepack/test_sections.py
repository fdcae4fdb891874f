from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from musubi.architectures.framepack.sections import (
    Section,
    forward_sections,
    frame_issues,
    gaps,
    inverted_sections,
    section_count,
    used_frames,
)

Cut = Callable[..., list[Section]]
each_order = pytest.mark.parametrize("cut", [inverted_sections, forward_sections])
windows, counts, rests = st.integers(1, 10), st.integers(1, 9), st.integers(0, 9)


def clip(frames: int) -> Tensor:
    """Return latents (C, F, H, W) whose every value is the number of its frame, from 1: blank frames hold 0."""
    return (torch.arange(frames) + 1.0).view(1, -1, 1, 1).expand(16, -1, 2, 3)


def numbers(latents: Tensor | None) -> list[int]:
    assert latents is not None
    assert torch.equal(latents, latents[:1, :, :1, :1].expand_as(latents))
    return [int(value) for value in latents[0, :, 0, 0]]


@each_order
@given(window=windows, count=counts, rest=rests)
def test_targets_are_the_clip_but_its_first_frame_each_once(cut: Cut, window: int, count: int, rest: int) -> None:
    sections = cut(clip(1 + count * window + rest % window), window=window)

    assert len(sections) == count
    assert [n for s in sections for n in numbers(s.latents)] == list(range(2, 2 + count * window))


@each_order
@given(window=windows, count=counts)
def test_each_frame_has_a_position_of_its_own(cut: Cut, window: int, count: int) -> None:
    for section in cut(clip(1 + count * window), window=window):
        for name, positions in section.tensors.items():
            if name.endswith("indices"):
                assert positions.dtype == torch.int64
        indices = [t for name, t in section.tensors.items() if name.endswith("indices")]
        latents = [t for name, t in section.tensors.items() if not name.endswith("indices")]

        assert [len(i) for i in indices] == [t.shape[1] for t in latents] == [window, 2, 2, 16]
        assert len(torch.cat(indices).unique()) == window + 20


@given(window=windows, count=counts)
def test_the_inverted_history_is_what_follows(window: int, count: int) -> None:
    sections = inverted_sections(clip(1 + count * window), window=window)
    padded = [*range(1, 2 + count * window), *[0] * 19]

    for number, section in enumerate(sections):
        end = 1 + (number + 1) * window
        assert numbers(section.latents_clean) == [1, padded[end]]
        assert numbers(section.latents_clean_2x) == padded[end + 1 : end + 3]
        assert numbers(section.latents_clean_4x) == padded[end + 3 : end + 19]


@given(window=windows, count=counts)
def test_the_forward_history_is_what_precedes(window: int, count: int) -> None:
    sections = forward_sections(clip(1 + count * window), window=window)
    padded = [*[0] * 19, *range(1, 2 + count * window)]

    for number, section in enumerate(sections):
        history = padded[1 + number * window :][:19]
        assert numbers(section.latents_clean_4x) == history[:16]
        assert numbers(section.latents_clean_2x) == history[16:18]
        assert numbers(section.latents_clean) == [1, history[18]]


@each_order
def test_a_batch_is_cut_like_its_items(cut: Cut) -> None:
    batch = torch.randn(2, 16, 11, 2, 2, generator=torch.Generator().manual_seed(0))

    together = cut(batch, window=3)
    alone = [cut(latents, window=3) for latents in batch]

    for part, section in enumerate(together):
        for name, tensor in section.tensors.items():
            wanted = [sections[part].tensors[name] for sections in alone]
            assert torch.equal(tensor, wanted[0] if name.endswith("indices") else torch.stack(wanted)), name


@each_order
def test_a_clip_that_is_too_short_is_refused(cut: Cut) -> None:
    with pytest.raises(ValueError, match="a section takes 10 latent frames, got 9"):
        cut(clip(9))


def test_sections_of_frames_agree_with_sections_of_latents() -> None:
    for frames in range(37, 300, 4):
        latents = (used_frames(frames) - 1) // 4 + 1

        assert len(inverted_sections(clip(latents))) == section_count(frames)
        assert (latents - 1) % 9 == 0


def test_a_short_clip_is_told_what_it_takes() -> None:
    (issue,) = frame_issues(33)

    assert str(issue) == "frames: a section of 9 latent frames takes 37 frames, got 33"
    assert frame_issues(37) == []
    assert frame_issues(33, window=8) == []


@pytest.mark.parametrize(
    ("count", "expected"), [(1, (0,)), (4, (3, 2, 1, 0)), (5, (3, 2, 2, 1, 0)), (7, (3, 2, 2, 2, 2, 1, 0))]
)
def test_gaps_of_long_clips_are_those_of_short_ones(count: int, expected: tuple[int, ...]) -> None:
    assert gaps(count) == expected


def test_what_a_section_lacks_is_not_among_its_tensors() -> None:
    (section,) = inverted_sections(clip(10))

    bare = attrs.evolve(section, latents_clean_2x=None, clean_latent_2x_indices=None)

    assert section.tensors.keys() - bare.tensors.keys() == {"latents_clean_2x", "clean_latent_2x_indices"}
