from __future__ import annotations

from typing import Any

import pytest
import torch

from musubi import ConfigError, Hardware
from musubi.memory.hardware import CARDS, EFFICIENCY, as_hardware


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("RTX 4090", "RTX 4090"),
        ("rtx4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA A100-SXM4-80GB", "A100 80 GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 40 GB"),
        ("A100", "A100 40 GB"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA GeForce RTX 4060 Ti", "RTX 4060 Ti 16 GB"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTX PRO 6000"),
    ],
)
def test_a_card_is_known_by_what_drivers_and_people_call_it(name: str, found: str) -> None:
    assert Hardware.named(name).name == found


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_every_card_is_found_by_its_own_name(card: Hardware) -> None:
    assert Hardware.named(card.name) == card


@pytest.mark.parametrize("name", ["RTX 3090 Ti", "RTX 4080 SUPER", "RTX 4090 Laptop", "RTX 4060 Ti 8 GB", "L40"])
def test_another_card_of_a_like_name_is_not_taken_for_a_known_one(name: str) -> None:
    with pytest.raises(ConfigError, match="no card is known"):
        Hardware.named(name)


def test_an_unknown_name_lists_the_nearest_and_the_way_out() -> None:
    with pytest.raises(ConfigError, match="did you mean 'rtx 4090'") as failed:
        Hardware.named("RTX 4O90")

    assert "RTX PRO 6000" in str(failed.value)
    assert "Hardware(name=" in str(failed.value)


def test_a_published_time_is_met_at_the_stated_share_of_the_peak() -> None:
    """Qwen-Image at 1328 x 1328 on an RTX 3090: 461 TFLOP a step, 11 s published (spec 7.1)."""
    seconds = Hardware.named("RTX 3090").seconds(461e12)

    assert EFFICIENCY == 0.6
    assert seconds == pytest.approx(10.8, rel=0.01)


def test_products_in_8_bits_have_their_own_peak_where_there_is_one() -> None:
    card = Hardware(name="a card", memory=1, tflops=1.0, int8=2.0)

    assert card.seconds(0, 1e12) == pytest.approx(0.5 / EFFICIENCY)
    assert Hardware(name="old", memory=1, tflops=1.0).seconds(0, 1e12) == pytest.approx(1 / EFFICIENCY)
    assert Hardware(name="new", memory=1).seconds(1e12) is None


def test_a_value_is_taken_as_it_is_and_a_cpu_is_no_card() -> None:
    own = Hardware(name="mine", memory=7)

    assert as_hardware(own, torch.device("cpu")) is own
    assert as_hardware("L40S", torch.device("cpu")) == Hardware.named("L40S")
    assert as_hardware(None, torch.device("cpu")) is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"memory": "24GiB"}, "memory: must be a whole number"),
        ({"memory": 1, "tflops": 0}, "tflops: must be a number above 0"),
        ({"memory": 0}, "memory"),
    ],
)
def test_what_is_no_hardware_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Hardware(name="mine", **given)


def test_what_is_neither_a_name_nor_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"hardware: must be a name or a Hardware, got 24.*RTX 4090"):
        as_hardware(24, torch.device("cpu"))


def test_float8_is_known_apart_from_whole_numbers() -> None:
    old, new = Hardware.named("RTX 3090"), Hardware.named("RTX 4090")

    assert [card.multiplies("fp8") for card in (old, new)] == [False, True]
    assert old.multiplies("int8")
    assert Hardware(name="unknown", memory=1).multiplies("fp8")
    assert new.seconds(0, 1e12, compute="fp8") == pytest.approx(2 * (new.seconds(0, 1e12) or 0), rel=0.01)
