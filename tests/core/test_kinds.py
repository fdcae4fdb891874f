from __future__ import annotations

import importlib.util
from typing import ClassVar

import pytest

from musubi.core import kinds
from musubi.core.errors import ConfigError
from musubi.core.spec import Spec

ENTRIES = [(family, kind) for family, table in kinds.KINDS.items() for kind in table]


@pytest.mark.parametrize(("family", "kind"), ENTRIES, ids=lambda value: value)
def test_a_registered_class_carries_the_family_and_kind_of_its_entry(family: str, kind: str) -> None:
    found = kinds.find(family, kind)

    assert issubclass(found, Spec)
    assert (found.family, found.kind) == (family, kind)


@pytest.mark.parametrize(("family", "kind"), ENTRIES, ids=lambda value: value)
def test_a_registered_class_lives_in_this_library(family: str, kind: str) -> None:
    module, _, _ = kinds.KINDS[family][kind].partition(":")

    assert module.startswith("musubi.")
    assert importlib.util.find_spec(module) is not None


def test_a_plugin_goes_before_the_table() -> None:
    class Mine(Spec):
        family: ClassVar[str] = "memory"
        kind: ClassVar[str] = "block_swap"

    assert kinds.find("memory", "block_swap", [Mine]) is Mine


def test_a_plugin_of_another_family_is_passed_over() -> None:
    class Mine(Spec):
        family: ClassVar[str] = "engine"
        kind: ClassVar[str] = "mine"

    with pytest.raises(ConfigError, match="no memory is called 'mine'"):
        kinds.find("memory", "mine", [Mine])


def test_an_unknown_kind_lists_the_known_ones_and_guesses() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'lora'\?.*known: lora") as caught:
        kinds.find("network", "lorra")

    assert caught.value.issues[0].path == "kind"


def test_an_unknown_family_has_no_kinds() -> None:
    with pytest.raises(ConfigError, match="no engine is called 'steam'"):
        kinds.find("engine", "steam")
