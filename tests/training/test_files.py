from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi.training.files import Written, name_issue, parsed, present

names = st.from_regex(r"[A-Za-z0-9_]([\w .+-]{0,12}[\w+-])?", fullmatch=True)
steps = st.builds(Written, when=st.just("step"), number=st.integers(1, 10**10), state=st.booleans())
numbered = steps | st.builds(Written, when=st.just("epoch"), number=st.integers(1, 99_999), state=st.booleans())
unnumbered = st.builds(Written, when=st.sampled_from(["last", "best"]), state=st.booleans())


@given(name=names, written=numbered | unnumbered)
def test_what_a_run_writes_is_recognised_by_its_name(name: str, written: Written) -> None:
    assert parsed(written.of(name), name) == written


@given(name=names, file=st.from_regex(r"lora(-step|-)?\d{0,12}(-best|-state|\.safetensors){1,2}", fullmatch=True))
def test_what_is_recognised_would_be_written_under_that_name(name: str, file: str) -> None:
    for run in (name, "lora"):
        written = parsed(file, run)
        assert written is None or written.of(run) == file


@given(name=names, other=names, written=numbered | unnumbered)
def test_a_file_of_one_run_is_never_taken_for_that_of_a_run_whose_name_is_allowed(
    name: str, other: str, written: Written
) -> None:
    if name != other and name_issue(name) is None and name_issue(other) is None:
        assert parsed(written.of(name), other) is None


@pytest.mark.parametrize(
    "file",
    [
        "lora-v2-000002.safetensors",
        "lora-0002.safetensors",
        "lora-step0500.safetensors",
        "lora-000002.safetensors.tmp",
        ".lora-000002-state.old",
        "lora-0000002.safetensors",
        "lora-step000000500-state",
        "LORA.safetensors",
        "my lora.safetensors",
        "lora-best-state.safetensors",
        "lora-241122.safetensors",
        "lora-20241122-state",
    ],
)
def test_other_files_are_left_alone(file: str) -> None:
    assert parsed(file, "lora") is None


def test_only_states_are_folders_and_only_weights_are_files(tmp_path: Path) -> None:
    (tmp_path / "lora-000002.safetensors").mkdir()
    (tmp_path / "lora-000003-state").write_text("", encoding="utf-8")
    good = Written(when="step", number=7, state=True).path(tmp_path, "lora")
    good.mkdir()

    assert list(present(tmp_path, "lora")) == [(good, Written(when="step", number=7, state=True))]
    assert list(present(tmp_path / "absent", "lora")) == []


@pytest.mark.parametrize("name", ["lora-000002", "lora-step00000500", "lora-best", "lora-state"])
def test_a_name_that_looks_like_another_runs_file_is_refused_with_a_way_out(name: str) -> None:
    issue = name_issue(name)

    assert issue is not None
    assert issue.path == "name"
    assert "lora-v2" in issue.hint


@pytest.mark.parametrize(
    "name", ["lora", "lora-v2", "lora-2024", "lora-20241122", "step00000500", "best", "lora-stepping"]
)
def test_other_names_are_fine(name: str) -> None:
    assert name_issue(name) is None
