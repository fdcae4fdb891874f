from __future__ import annotations

import pytest

from musubi.architectures.wan.spec import Wan
from musubi.networks.file import LoRAFile
from tests.networks.small_spec import SmallSpec
from tests.networks.weighted import lora, weights_of

SPEC = SmallSpec()
WAN = Wan.t2v_1_3b()
ATTENTION = tuple(f"blocks.{block}.self_attn.{part}" for block in (0, 1) for part in "qkvo")


def _wan(kind: str = "lora") -> LoRAFile:
    return LoRAFile(modules={name: weights_of(kind, 1536, 1536) for name in ATTENTION}, model=WAN)


def _small(**modules: object) -> LoRAFile:
    return LoRAFile(modules=modules, model=SPEC)  # type: ignore[arg-type]


def test_names_that_comfyui_changes_are_its_own_in_flat_layouts() -> None:
    file = LoRAFile(modules={"blocks.0.attn.proj_out": lora(8, 19), "patch": lora(8, 8)}, model=SPEC)

    flat = file.check(layout="reference")["ComfyUI"]

    assert flat.taken == 1
    assert flat.refused[0].path == "lora_unet_blocks_0_attn_proj_out"
    assert file.check(layout="comfy")["ComfyUI"].taken == 1


def test_what_only_some_layouts_can_tell_comfyui_is_refused_in_others() -> None:
    file = _small(patch=weights_of("dora", 8, 8))

    assert file.check(layout="comfy")["ComfyUI"].complete
    assert "dora_scale only" in file.check(layout="peft")["ComfyUI"].refused[0].message


def test_the_reference_takes_its_own_names_and_no_dora() -> None:
    assert _small(patch=weights_of("loha", 8, 8)).check(layout="reference")["musubi-tuner"].complete
    assert not _small(patch=weights_of("dora", 8, 8)).check(layout="reference")["musubi-tuner"].complete
    assert _small(patch=lora(8, 8)).check(layout="peft")["musubi-tuner"].taken == 0


def test_shapes_are_compared_with_the_published_model() -> None:
    verdict = _small(patch=lora(8, 9)).check(layout="comfy")["musubi"]

    assert verdict.refused[0].message == "it is for a weight of shape (8, 9), the published model's is (8, 8)"


def test_diffusers_is_asked_itself_and_its_error_is_its_answer() -> None:
    # Its converter of lora_unet_ names needs every kind of module in every block (spec: design/anchors.md 4.2).
    refused = _wan().check(layout="reference")["diffusers"]

    assert refused.taken == 0
    assert "KeyError" in refused.refused[0].message
    assert _wan().check(layout="comfy")["diffusers"].complete


@pytest.mark.parametrize(("kind", "layout"), [("loha", "comfy"), ("lokr", "peft"), ("dora", "comfy")])
def test_other_kinds_are_refused_by_diffusers_with_a_reason(kind: str, layout: str) -> None:
    verdict = _wan(kind).check(layout=layout)["diffusers"]  # type: ignore[arg-type]

    assert verdict.taken == 0
    assert len(verdict.refused) == len(ATTENTION)


def test_a_dora_in_diffusers_own_layout_is_taken_by_diffusers() -> None:
    assert _wan("dora").check(layout="diffusers")["diffusers"].complete
