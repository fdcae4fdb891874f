from __future__ import annotations

import pathlib
import sys
import types

import pytest
import torch

from musubi.core.errors import ConfigError
from musubi.optim.named import as_arguments, dotted, found, name_of, plain


class _Lazy(types.ModuleType):
    """A package that imports a class when it is asked for, as transformers does."""

    asked: list[str]

    def __getattr__(self, name: str) -> type:
        self.asked.append(name)
        if name == "Broken":
            raise ImportError("half_of_it is not installed")
        if name == "Ready":
            return torch.optim.SGD
        raise AttributeError(name)

    def __dir__(self) -> list[str]:
        return ["Broken", "Ready", "heavy"]


@pytest.fixture
def lazy(monkeypatch: pytest.MonkeyPatch) -> _Lazy:
    package = _Lazy("lazy_package")
    package.asked = []
    monkeypatch.setitem(sys.modules, "lazy_package", package)
    return package


def test_a_short_name_is_one_of_the_home_and_a_dotted_one_says_where() -> None:
    assert found("SGD", "torch.optim") is torch.optim.SGD
    assert found("pathlib.Path", "torch.optim") is pathlib.Path


def test_a_class_that_is_imported_when_asked_for_is_found(lazy: _Lazy) -> None:
    assert found("lazy_package.Ready", "torch.optim") is torch.optim.SGD
    assert set(lazy.asked) == {"Ready"}


def test_a_wrong_name_imports_none_of_its_neighbours(lazy: _Lazy) -> None:
    with pytest.raises(ConfigError, match="lazy_package has no class Redy; did you mean 'Ready'"):
        found("lazy_package.Redy", "torch.optim")
    assert set(lazy.asked) == {"Redy"}


@pytest.mark.usefixtures("lazy")
def test_a_class_whose_own_import_fails_is_named() -> None:
    with pytest.raises(ConfigError, match=r"lazy_package\.Broken cannot be imported: half_of_it is not installed"):
        found("lazy_package.Broken", "torch.optim")


def test_what_is_not_a_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="math has no class pi"):
        found("math.pi", "torch.optim")


def test_a_class_becomes_its_name_and_a_name_stays() -> None:
    assert name_of(pathlib.Path).rpartition(".")[2] == "Path"  # type: ignore[attr-defined]
    assert found(str(name_of(torch.optim.SGD)), "") is torch.optim.SGD
    assert name_of("SGD") == "SGD"


@pytest.mark.parametrize("name", ["SGD", "torch.optim.SGD", "_private.Class"])
def test_names_are_words_with_dots(name: str) -> None:
    assert dotted(name) is None


@pytest.mark.parametrize("name", ["", ".", "a..b", "a-b", "class", "a.import", 3, None])
def test_anything_else_is_no_name(name: object) -> None:
    assert "must be a class" in (dotted(name) or "")


@pytest.mark.parametrize("value", [1, 0.5, True, "text", (0.9, 0.99), ()])
def test_arguments_are_numbers_text_and_tuples(value: object) -> None:
    assert plain({"argument": value}) is None


@pytest.mark.parametrize("value", [None, [1], {"a": 1}, ("a", "b"), print])
def test_what_a_file_cannot_hold_is_named(value: object) -> None:
    assert "argument must be a number" in (plain({"argument": value}) or "")


@pytest.mark.parametrize("value", [[], 3, {1: 2}])
def test_arguments_go_by_their_names(value: object) -> None:
    assert "must be names with values" in (plain(value) or "")


def test_lists_become_tuples_as_they_are_in_a_file() -> None:
    assert as_arguments({"betas": [0.9, 0.99], "eps": 1e-8}) == {"betas": (0.9, 0.99), "eps": 1e-8}
    assert as_arguments("no mapping") == "no mapping"
