from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi import QwenImage, Wan
from musubi.architecture import Architecture
from musubi.cache.format import latent_label, text_label
from musubi.compat.names import latent_name, short_name, text_stem
from musubi.data.sample import Window

stems = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
sides = st.integers(1, 99_999)


@pytest.mark.parametrize(
    ("model", "name"),
    [(Wan.t2v_14b(), "wan"), (QwenImage.text_to_image(), "qi"), (QwenImage.edit_2509(), "qie")],
    ids=str,
)
def test_a_model_is_called_as_in_the_references_file_names(model: Architecture, name: str) -> None:
    assert short_name(model) == name


@given(stem=stems, width=sides, height=sides)
def test_the_name_of_a_picture_is_read_back_whatever_its_stem(stem: str, width: int, height: int) -> None:
    label = latent_label(stem, size=(width, height), suffix="wan")

    found = latent_name(f"{label}.safetensors", architecture="wan", clip=False)

    assert found is not None
    assert (found.stem, found.size, found.window) == (stem, (width, height), None)


@given(stem=stems, start=st.integers(0, 10**6), count=st.integers(1, 2000), part=st.none() | st.integers(0, 12_000))
def test_the_name_of_a_window_is_read_back_whatever_its_stem(
    stem: str, start: int, count: int, part: int | None
) -> None:
    label = latent_label(stem, size=(832, 480), suffix="fp", window=Window(start, count), part=part)

    found = latent_name(f"{label}.safetensors", architecture="fp", clip=True)

    assert found is not None
    assert (found.stem, found.window, found.section) == (stem, Window(start, count), part)


@given(stem=stems)
def test_the_name_of_a_text_is_read_back_whatever_its_stem(stem: str) -> None:
    assert text_stem(f"{text_label(stem, suffix='qie')}.safetensors", architecture="qie") == stem


@pytest.mark.parametrize(
    "name", ["_0832x0480_wan.safetensors", "cat_832x480_wan.safetensors", "cat_wan.safetensors", "cat_0832x0480.pt"]
)
def test_what_is_not_named_by_the_rule_is_not_read(name: str) -> None:
    assert latent_name(name, architecture="wan", clip=False) is None


def test_a_clip_needs_a_window_in_its_name() -> None:
    assert latent_name("cat_0832x0480_wan.safetensors", architecture="wan", clip=True) is None


def test_the_text_of_another_architecture_is_none_of_ours() -> None:
    assert text_stem("cat_wan_te.safetensors", architecture="hv") is None
    assert text_stem("_wan_te.safetensors", architecture="wan") is None
