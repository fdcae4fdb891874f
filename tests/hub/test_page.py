from __future__ import annotations

import re
from typing import Any

import attrs
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musubi.hub.page import Shown, base_of, card
from musubi.networks.file import LoRAFile

words = st.text(st.characters(exclude_categories=["Cs", "Cc"]))


def front_matter(page: str) -> dict[str, Any]:
    _, matter, _ = re.split(r"^---$", page, maxsplit=2, flags=re.MULTILINE)
    values: dict[str, Any] = yaml.safe_load(matter)
    return values


def test_the_hub_reads_base_licence_and_samples_from_the_front_matter(lora: LoRAFile) -> None:
    page = card(lora, repo="me/clay", file="clay.safetensors", samples=[Shown(path="samples/0.png", prompt="a fox")])

    matter = front_matter(page)

    assert matter["base_model"] == "Org/Base-14B"
    assert matter["base_model_relation"] == "adapter"
    assert matter["license"] == "apache-2.0"
    assert matter["widget"] == [{"text": "a fox", "output": {"url": "samples/0.png"}}]
    assert "lora" in matter["tags"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(prompt=words, title=words)
def test_any_prompt_and_title_keep_the_front_matter_readable(lora: LoRAFile, prompt: str, title: str) -> None:
    named = attrs.evolve(lora, metadata={**lora.metadata, "modelspec.title": title})

    page = card(named, repo="me/clay", file="clay.safetensors", samples=[Shown(path="0.png", prompt=prompt)])

    assert front_matter(page)["widget"][0]["text"] == prompt


def test_prompts_cannot_add_markup(lora: LoRAFile) -> None:
    page = card(
        lora, repo="me/c", file="c.safetensors", samples=[Shown(path="0.png", prompt="<script>x</script>\n# Big")]
    )
    body = page.rpartition("---\n")[2]

    assert "<script>" not in body
    assert "\n# Big" not in body


def test_what_the_user_says_goes_before_what_the_file_says(lora: LoRAFile) -> None:
    page = card(lora, repo="me/c", file="c.safetensors", base_model="Other/Base", licence="mit")

    assert front_matter(page)["base_model"] == "Other/Base"
    assert front_matter(page)["license"] == "mit"


def test_a_lora_without_metadata_has_a_page_too() -> None:
    page = card(LoRAFile(modules={}), repo="me/clay-style", file="lora.safetensors")

    assert "# clay-style" in page
    assert "base_model" not in front_matter(page)


def test_clips_are_shown_as_clips(lora: LoRAFile) -> None:
    page = card(lora, repo="me/c", file="c.safetensors", samples=[Shown(path="samples/0.mp4")])

    assert '<video src="samples/0.mp4"' in page
    assert front_matter(page)["pipeline_tag"] == "text-to-video"


def test_the_page_shows_how_to_load_the_file(lora: LoRAFile) -> None:
    page = card(lora, repo="me/clay", file="clay_style.safetensors")

    assert 'hub.pull("me/clay@main:clay_style.safetensors")' in page


@pytest.mark.parametrize(
    ("name", "base"),
    [("Org/Base@main:dit.safetensors", "Org/Base"), ("dit.safetensors", None), ("", None)],
)
def test_the_base_is_named_only_if_it_is_on_the_hub(name: str, base: str | None) -> None:
    assert base_of({"ss_sd_model_name": name}) == base
