from __future__ import annotations

import pickle
from pathlib import Path, PureWindowsPath

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi.core.errors import (
    CacheError,
    ConfigError,
    DataError,
    Issue,
    MusubiError,
    RunError,
    WeightsError,
    shown,
)


def test_an_issue_says_where_what_and_the_way_out() -> None:
    assert str(Issue("blocks", "must be 1 to 39", "40 exist")) == "blocks: must be 1 to 39 (hint: 40 exist)"


def test_an_issue_without_path_or_hint_is_its_message() -> None:
    assert str(Issue("", "is broken")) == "is broken"


def test_an_issue_is_one_line_that_can_be_printed_whatever_files_and_fields_are_called() -> None:
    issue = Issue("caf\u00e9\n.png", "is not taken for a\x1b[31m.png", "it has \udcff, \r and \u65e5")

    assert str(issue) == "caf\u00e9\\n.png: is not taken for a\\x1b[31m.png (hint: it has \\udcff, \\r and \u65e5)"
    assert attrs.evolve(issue) == issue


@pytest.mark.parametrize(
    ("path", "prefix", "joined"),
    [
        ("blocks", "memory[1]", "memory[1].blocks"),
        ("[1]", "memory", "memory[1]"),
        ("[1].blocks", "memory", "memory[1].blocks"),
        ("", "memory", "memory"),
        ("blocks", "", "blocks"),
    ],
)
def test_paths_nest(path: str, prefix: str, joined: str) -> None:
    assert Issue(path, "m", "h").under(prefix) == Issue(joined, "m", "h")


@given(parts=st.lists(st.sampled_from(["a", "b", "[0]"]), min_size=1, max_size=5))
def test_nesting_one_by_one_is_nesting_at_once(parts: list[str]) -> None:
    issue = Issue("x", "m")
    for part in reversed(parts):
        issue = issue.under(part)

    assert issue.path == "".join(p if p.startswith("[") or i == 0 else f".{p}" for i, p in enumerate([*parts, "x"]))


@pytest.mark.parametrize("error", [ConfigError, DataError, CacheError, WeightsError])
def test_an_error_lists_all_its_issues(error: type[ConfigError]) -> None:
    raised = error("trainer", [Issue("steps", "is missing"), Issue("lr", "must be positive")])

    assert str(raised) == "trainer: 2 problems\n  - steps: is missing\n  - lr: must be positive"
    assert [issue.path for issue in raised.issues] == ["steps", "lr"]


@pytest.mark.parametrize("error", [ConfigError, DataError, CacheError, WeightsError])
def test_an_error_with_one_issue_is_one_line(error: type[ConfigError]) -> None:
    assert str(error("trainer", [Issue("steps", "is missing")])) == "trainer: steps: is missing"


def test_an_error_without_issues_is_its_title() -> None:
    assert str(CacheError("nothing is built")) == "nothing is built"


def test_a_run_error_says_where_in_the_run() -> None:
    error = RunError(
        "loss is not finite", step=7, items=["a", "b"], bucket="832x480x25", sigma=[0.25, 1], hint="lower lr"
    )

    assert str(error) == (
        "loss is not finite (step 7; items a, b; bucket 832x480x25; sigma 0.2500, 1.0000) (hint: lower lr)"
    )


@pytest.mark.parametrize("error", [ConfigError, DataError, CacheError, WeightsError, RunError])
def test_every_error_is_a_musubi_error(error: type[Exception]) -> None:
    assert issubclass(error, MusubiError)


def test_errors_travel_between_processes() -> None:
    error = DataError("folder", [Issue("a.png", "cannot be read", "replace it")])

    again = pickle.loads(pickle.dumps(error))

    assert (type(again), str(again), again.issues) == (DataError, str(error), error.issues)


def test_a_run_error_travels_between_processes() -> None:
    error = RunError("loss is not finite", step=7, items=["a"], bucket="b", sigma=[0.5], hint="h")

    again = pickle.loads(pickle.dumps(error))

    assert (str(again), again.step, again.sigma) == (str(error), 7, (0.5,))


def test_paths_are_shown_with_forward_slashes() -> None:
    assert shown(Path("a") / "b") == "a/b"
    assert PureWindowsPath("a\\b").as_posix() == "a/b"


def test_a_path_is_shown_on_one_line_and_can_be_printed_whatever_its_name() -> None:
    text = shown("folder/caf\u00e9\nnext\udce9 \u65e5\u672c.png")

    assert text == "folder/caf\u00e9\\nnext\\udce9 \u65e5\u672c.png"
    assert text.encode("utf-8")


def test_a_thousand_problems_do_not_fill_the_screen_and_are_all_kept() -> None:
    error = DataError("no item can be used", [Issue(f"{n}.png", "is damaged") for n in range(1000)])

    assert len(str(error).splitlines()) == 32
    assert str(error).endswith("and 970 more; the error's issues has them all")
    assert len(error.issues) == 1000
