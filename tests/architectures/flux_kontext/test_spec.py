from __future__ import annotations

import re

import pytest

from musubi import Embedded, FluxKontext
from musubi.core.errors import ConfigError
from musubi.memory.quantise import quantises
from musubi.noise.samplers import Euler
from tests.parity.cases import vector

SPEC = FluxKontext.dev()


def _matching(patterns: tuple[str, ...]) -> list[str]:
    return [name for name in SPEC.linears() if any(re.fullmatch(pattern, name) for pattern in patterns)]


def test_the_default_targets_are_the_reference_s_228() -> None:
    cases = [case for case in vector("train_lora_keys")["cases"] if case.get("arch") == "flux_kontext"]
    whole = next(case for case in cases if case.get("kind") == "full_size_counts")
    sizes = SPEC.linears()

    names = _matching(SPEC.layout.adapters)

    assert len(names) == whole["n_lora_modules"] == 228
    assert sum(32 * sum(sizes[name]) for name in names) == whole["n_trainable_rank32"]


def test_with_modulation_they_are_the_reference_s_without_its_exclusion() -> None:
    case = next(c for c in vector("train_lora_keys")["cases"] if c.get("network_args") == {"exclude_patterns": "[]"})
    depth = ("double_blocks.0.", "double_blocks.1.", "single_blocks.0.", "single_blocks.1.")

    names = _matching(SPEC.layout.presets["with_modulation"])

    assert [name for name in names if name.startswith(depth)] == [name for _, name, *_ in case["modules"]]
    assert len(names) == 304


@pytest.mark.parametrize(("preset", "count"), [("attention", 76), ("double_blocks", 152), ("single_blocks", 76)])
def test_presets_are_parts_of_the_default_set(preset: str, count: int) -> None:
    names = _matching(SPEC.layout.presets[preset])

    assert len(names) == count
    assert set(names) < set(_matching(SPEC.layout.adapters))


def test_all_linears_are_there_with_the_fused_ones_whole() -> None:
    linears = SPEC.linears()

    assert len(linears) == 8 + 19 * 10 + 38 * 3 + 2
    assert linears["double_blocks.18.txt_attn.qkv"] == (3072, 9216)
    assert linears["single_blocks.37.linear1"] == (3072, 21504)
    assert linears["single_blocks.37.linear2"] == (15360, 3072)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("double_blocks.3.txt_attn.qkv.weight", True),
        ("single_blocks.3.linear1.weight", True),
        ("double_blocks.3.img_mod.lin.weight", False),
        ("single_blocks.3.modulation.lin.weight", False),
        ("final_layer.adaLN_modulation.1.weight", False),
        ("img_in.weight", False),
    ],
)
def test_blocks_are_quantised_but_for_their_modulation(name: str, *, expected: bool) -> None:
    assert quantises(name, SPEC.layout) == expected


def test_the_grid_and_the_training_levels_follow_the_model_s_rule() -> None:
    assert isinstance(SPEC.sampler, Euler)
    assert SPEC.sampler.shift == pytest.approx(3.1582, abs=1e-4)
    assert SPEC.timesteps.logit(1024)[0] == pytest.approx(0.630)


def test_a_changed_control_invalidates_latents_only() -> None:
    assert SPEC.roles.required == ("control",)
    assert ["controls" in stage.reads for stage in SPEC.stages] == [True, False]


def test_single_pictures_only() -> None:
    assert "makes single pictures" in SPEC.geometry.frame_issues(5)[0].message


def test_the_metadata_are_the_reference_s() -> None:
    assert SPEC.name == "flux_kontext"
    assert SPEC.metadata["modelspec.architecture"] == "Flux.1-dev/lora"
    assert SPEC.metadata["modelspec.implementation"] == "https://github.com/black-forest-labs/flux"


def test_a_request_may_show_pictures_or_none() -> None:
    assert SPEC.request_roles.optional == ("control",)
    assert SPEC.request_roles.required == ()
    assert SPEC.sizes_controls


def test_guidance_is_an_input_with_the_reference_s_numbers() -> None:
    assert SPEC.training_guidance == 1.0
    assert SPEC.generation.guidance == Embedded(scale=2.5)


@pytest.mark.parametrize("wrong", [-1.0, float("nan")])
def test_guidance_in_training_is_a_number_that_can_be_told(wrong: float) -> None:
    with pytest.raises(ConfigError, match="training_guidance"):
        FluxKontext(training_guidance=wrong)
