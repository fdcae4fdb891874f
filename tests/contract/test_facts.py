"""What an architecture says about itself: consistent in every variant, without loading anything."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from musubi.architecture import Architecture
from musubi.core.errors import ConfigError, MusubiError
from tests.contract.kinds import KINDS, TINY, VARIANTS, class_of

each_variant = pytest.mark.parametrize("spec", VARIANTS.values(), ids=VARIANTS)
each_kind = pytest.mark.parametrize("kind", KINDS)


@each_variant
def test_a_spec_survives_toml_and_json(spec: Architecture) -> None:
    changed = spec.with_weights(**{c: f"folder/{c}.safetensors" for c in spec.default_weights()})

    for each in (spec, changed):
        assert type(each).from_toml(each.to_toml()) == each
        assert type(each).from_json(each.to_json()) == each


@each_variant
def test_a_spec_is_found_by_its_kind(spec: Architecture) -> None:
    values = spec.to_dict()

    assert values["kind"] == spec.kind
    assert class_of(spec.kind) is type(spec)


@each_variant
def test_every_stage_needs_components_that_exist(spec: Architecture) -> None:
    names = [stage.name for stage in spec.stages]
    used = {component for stage in spec.stages for component in stage.components}

    assert len(set(names)) == len(names)
    assert used <= set(spec.default_weights())
    assert all(stage.reads for stage in spec.stages)


@each_variant
def test_pixels_captions_and_required_conditions_are_each_read_by_a_stage(spec: Architecture) -> None:
    read = {part for stage in spec.stages for part in stage.reads}

    assert {"pixels", "caption"} <= read
    assert "controls" in read or not spec.roles.required


@each_variant
def test_the_experts_share_all_noise_levels_without_gap_or_overlap(spec: Architecture) -> None:
    ranges = sorted((expert.low, expert.high) for expert in spec.experts)

    assert (ranges[0][0], ranges[-1][1]) == (0.0, 1.0)
    assert all(before[1] == after[0] for before, after in pairwise(ranges))
    assert {expert.component for expert in spec.experts} <= set(spec.default_weights())
    assert len({expert.name for expert in spec.experts}) == len(spec.experts)


@each_variant
def test_the_defaults_of_generation_are_legal(spec: Architecture) -> None:
    defaults = spec.generation

    assert not spec.geometry.size_issues(defaults.size)
    assert not spec.geometry.frame_issues(defaults.frames)
    assert min(defaults.steps, defaults.fps) > 0
    rule, experts = defaults.guidance, [expert.name for expert in spec.experts]
    assert rule > 0 if isinstance(rule, float) else not list(rule.misfits(experts=experts, blocks=None))


@each_variant
def test_every_legal_size_divides_into_tokens(spec: Architecture) -> None:
    geometry = spec.geometry
    size = (3 * geometry.multiple, 2 * geometry.multiple)
    frames, height, width = geometry.latent_shape(size)[1:]

    assert (height * geometry.stride, width * geometry.stride) == size[::-1]
    assert height % geometry.patch[1] == 0
    assert width % geometry.patch[2] == 0
    assert geometry.tokens((frames, height, width)) > 0


@each_variant
def test_patterns_are_regular_expressions_and_blocks_are_named(spec: Architecture) -> None:
    layout = spec.layout

    assert all(re.compile(p) for p in (*layout.adapters, *layout.quantise, *layout.keep))
    assert layout.blocks
    assert layout.adapters


@each_variant
def test_noise_levels_of_training_are_inside_the_open_interval(spec: Architecture) -> None:
    sigma = spec.timesteps.sample(1000, tokens=1024, generator=torch.Generator().manual_seed(0))

    assert sigma.dtype == torch.float32
    assert 0 < sigma.min() < sigma.max() < 1


@each_variant
def test_noise_levels_of_sampling_fall_to_zero(spec: Architecture) -> None:
    sigmas = spec.sampler.sigmas(spec.generation.steps, tokens=1024)

    assert sigmas.dtype == torch.float32
    assert len(sigmas) == spec.generation.steps + 1
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()


@each_variant
def test_weights_of_unknown_components_are_refused(spec: Architecture) -> None:
    component = next(iter(spec.default_weights()))

    with pytest.raises(ConfigError, match=f"weights.{component}x: no such component; did you mean '{component}'"):
        spec.with_weights(**{f"{component}x": "x.safetensors"})


@each_variant
def test_the_user_s_weights_replace_the_published_ones(spec: Architecture) -> None:
    for component, published in spec.default_weights().items():
        assert spec.weight(component) == published
        assert spec.with_weights(**{component: Path("a/b.safetensors")}).weight(component).location == "a/b.safetensors"


@each_kind
def test_registered_kinds_publish_their_weights_on_the_hub(kind: str) -> None:
    specs = [spec for spec in VARIANTS.values() if spec.kind == kind and kind != "toy"]

    assert all(ref.on_hub for spec in specs for ref in spec.default_weights().values())


def test_names_and_cache_suffixes_tell_the_kinds_apart() -> None:
    classes = [class_of(kind) for kind in KINDS]

    for names in ([c.name for c in classes], [c.cache_suffix for c in classes]):
        assert len(set(names)) == len(names)
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in TINY])
def test_what_cannot_be_run_yet_says_so(kind: str) -> None:
    spec = next(spec for spec in VARIANTS.values() if spec.kind == kind)

    for verb in (spec.codec, spec.denoiser):
        with pytest.raises(MusubiError, match="this version"):
            verb()


@each_kind
def test_the_class_and_its_constructors_are_documented(kind: str) -> None:
    found = class_of(kind)

    assert found.__doc__
    assert "Method generated by attrs" not in found.__doc__
