from __future__ import annotations

import re

import pytest

from musubi.architectures.wan.spec import Wan
from musubi.core.errors import WeightsError
from musubi.networks.check import Check, Verdict
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


def test_a_program_without_the_model_takes_nothing_and_is_not_blamed() -> None:
    check = _small(patch=lora(8, 8)).check(layout="comfy")

    assert not check["diffusers"].available
    assert check["diffusers"].row() == ("diffusers", "-", "it does not have this model")
    assert check["ComfyUI"].complete


def test_a_layout_that_cannot_hold_the_adapters_says_so() -> None:
    with pytest.raises(WeightsError, match="a loha cannot be cut"):
        LoRAFile(modules={"blocks.0.attn.qk": weights_of("loha", 20, 8)}, model=SPEC).check(layout="diffusers")


def test_without_a_layout_the_files_own_is_checked_or_what_save_would_write() -> None:
    assert _small(patch=lora(8, 8)).check().layout == SPEC.interchange.layout
    assert LoRAFile(modules={"patch": lora(8, 8)}, layout="comfy").check(SPEC).layout == "comfy"


def test_it_prints_as_a_table_and_shows_as_a_card() -> None:
    check = _wan().check(layout="reference")

    lines = str(check).splitlines()

    assert lines[0] == "layout 'reference':"
    assert re.fullmatch(r"diffusers +0 of 8  lora_unet_blocks_0_self_attn_q: its loader stops with .*", lines[2])
    assert re.fullmatch(r"ComfyUI +8 of 8", lines[3])
    assert "musubi-tuner" in check._repr_html_()
    assert repr(check).startswith("<Check of layout 'reference': diffusers 0/8, ComfyUI 8/8")
    assert not check.complete


def test_complete_means_every_program_that_has_the_model() -> None:
    there, absent = Verdict("a", 3), Verdict("b", 3, available=False)

    assert Check("comfy", (there, absent)).complete
    assert absent.taken == 0
