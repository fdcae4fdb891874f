from __future__ import annotations

import math
import re
from typing import get_args

import pytest
import torch

from musubi import FramePack, LoRAFile
from musubi.architectures.framepack.spec import PUBLISHED, Variant
from musubi.core.errors import ConfigError, MusubiError
from musubi.memory.quantise import quantises
from musubi.networks.keys import LAYOUTS, LayoutName
from musubi.networks.weights import LoRAWeights
from musubi.noise.samplers import UniPC
from musubi.noise.timesteps import Shift
from tests.parity.cases import vector

SPEC = FramePack.inverted()
VARIANTS = get_args(Variant)


def _matching(patterns: tuple[str, ...]) -> list[str]:
    return [name for name in SPEC.linears() if any(re.fullmatch(pattern, name) for pattern in patterns)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_a_constructor_of_its_name_and_is_published(variant: Variant) -> None:
    assert getattr(FramePack, variant)() == FramePack(variant=variant)
    assert FramePack(variant=variant).published == PUBLISHED[variant]


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"variant: must be one of .*f1"):
        FramePack(variant="F1")  # type: ignore[arg-type]


def test_the_default_targets_are_the_reference_s_440() -> None:
    cases = [case for case in vector("train_lora_keys")["cases"] if case.get("arch") == "framepack"]
    whole = next(case for case in cases if case.get("kind") == "full_size_counts")
    sizes = SPEC.linears()

    names = _matching(SPEC.layout.adapters)

    assert len(names) == whole["n_lora_modules"] == 440
    assert sum(32 * sum(sizes[name]) for name in names) == whole["n_trainable_rank32"]


def test_with_modulation_they_are_the_reference_s_with_norms_included() -> None:
    cases = [case for case in vector("train_lora_keys")["cases"] if case.get("arch") == "framepack"]
    wider = next(case for case in cases if case.get("network_args") == {"include_patterns": "[r'.*norm.*']"})
    depth = tuple(f"{stack}transformer_blocks.{i}." for stack in ("", "single_") for i in (0, 1))

    names = _matching(SPEC.layout.presets["with_modulation"])

    assert [name for name in names if name.startswith(depth)] == [name for _, name, *_ in wider["modules"]]
    assert len(names) == 520


@pytest.mark.parametrize(
    ("preset", "count"), [("attention", 280), ("feed_forward", 160), ("double_blocks", 240), ("single_blocks", 200)]
)
def test_presets_are_parts_of_the_default_set(preset: str, count: int) -> None:
    names = _matching(SPEC.layout.presets[preset])

    assert len(names) == count
    assert set(names) < set(_matching(SPEC.layout.adapters))


def test_all_linears_of_the_published_model_are_known() -> None:
    linears = SPEC.linears()

    assert len(linears) == 520 + 29
    assert linears["single_transformer_blocks.39.proj_out"] == (15360, 3072)
    assert linears["image_projection.up"] == (1152, 9216)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("transformer_blocks.3.attn.add_q_proj.weight", True),
        ("single_transformer_blocks.3.proj_mlp.weight", True),
        ("transformer_blocks.3.norm1_context.linear.weight", False),
        ("single_transformer_blocks.3.norm.linear.weight", False),
        ("context_embedder.token_refiner.refiner_blocks.0.attn.to_q.weight", False),
        ("norm_out.linear.weight", False),
    ],
)
def test_blocks_are_quantised_but_for_their_modulation(name: str, *, expected: bool) -> None:
    assert quantises(name, SPEC.layout) == expected


@pytest.mark.parametrize(("layout", "taken"), [("diffusers", 440), ("reference", 0)])
def test_all_of_a_default_lora_loads_in_diffusers_but_not_under_the_reference_s_names(
    layout: LayoutName, taken: int
) -> None:
    sizes = SPEC.linears()
    modules = {name: _lora(*sizes[name]) for name in _matching(SPEC.layout.adapters)}

    check = LoRAFile(modules=modules).check(SPEC, layout=layout)

    assert SPEC.interchange.layout == "diffusers"
    assert layout in LAYOUTS
    assert check["diffusers"].taken == taken
    assert check["musubi"].complete
    assert not check["ComfyUI"].available


def test_sampling_levels_follow_the_authors_rule_at_the_default_size() -> None:
    tokens = SPEC.geometry.tokens((9, *SPEC.geometry.latent_shape(SPEC.generation.size)[2:]))
    mu = 0.5 + (tokens - 256) * (1.15 - 0.5) / (4096 - 256)

    assert isinstance(SPEC.sampler, UniPC)
    assert SPEC.sampler.shift == pytest.approx(math.exp(min(mu, math.log(7))))
    assert Shift(shift=3.0) == SPEC.timesteps


def test_the_default_clip_is_whole_sections() -> None:
    from musubi.architectures.framepack.sections import section_count, used_frames

    frames = SPEC.generation.frames

    assert used_frames(frames) == frames
    assert section_count(frames) == 4


def test_the_metadata_are_the_reference_s() -> None:
    assert (SPEC.name, SPEC.cache_suffix) == ("framepack", "fp")
    assert SPEC.metadata["modelspec.architecture"] == "framepack/lora"
    assert SPEC.metadata["modelspec.implementation"] == "https://github.com/lllyasviel/FramePack"


@pytest.mark.parametrize("verb", ["codec", "denoiser"])
def test_what_is_not_there_yet_says_so(verb: str) -> None:
    with pytest.raises(MusubiError, match=r"this version of musubi cannot .* FramePack-F1 yet"):
        getattr(FramePack.f1(), verb)()


def _lora(inputs: int, outputs: int) -> LoRAWeights:
    return LoRAWeights(down=torch.zeros(1, inputs), up=torch.zeros(outputs, 1), alpha=torch.tensor(0.5))
