from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi.core.errors import WeightsError
from musubi.core.refs import WeightsRef, as_ref


@pytest.mark.parametrize(
    ("location", "repo", "name"),
    [
        ("Org/Model-1.3B@main:vae/model.pth", "Org/Model-1.3B", "Org/Model-1.3B@main:vae/model.pth"),
        ("org/model@refs/pr/1:", "org/model", "org/model@refs/pr/1:"),
        ("org/model@0a1b2c:folder", "org/model", "org/model@0a1b2c:folder"),
    ],
)
def test_a_hub_reference_is_recognised(location: str, repo: str, name: str) -> None:
    ref = WeightsRef(location)

    assert (ref.on_hub, ref.repo, ref.name) == (True, repo, name)


@pytest.mark.parametrize(
    "location",
    [
        "model.safetensors",
        "models/wan.safetensors",
        "/data/models@home/x.safetensors",
        "C:\\models\\x.safetensors",
        "C:/models/x.safetensors",
        "C:\\me@home\\x:y",
        "org/model",
        "org/model:file",
        "org/model@main",
        "a/b/c@main:file",
        "https://example.org/a/b@main:file",
        "",
    ],
)
def test_anything_else_is_a_local_path(location: str) -> None:
    ref = WeightsRef(location)

    assert not ref.on_hub
    assert ref.repo is None


def test_the_name_of_a_local_file_has_no_folders() -> None:
    assert WeightsRef("/home/someone/private/x.safetensors").name == "x.safetensors"
    assert WeightsRef("C:\\Users\\someone\\x.safetensors").name == "x.safetensors"


@given(location=st.text())
def test_a_reference_survives_text(location: str) -> None:
    assert as_ref(str(WeightsRef(location))) == WeightsRef(location)


@given(location=st.text())
def test_questions_about_any_text_have_an_answer(location: str) -> None:
    ref = WeightsRef(location)

    assert ref.on_hub == (ref.repo is not None)
    assert "/" not in ref.name or ref.on_hub


def test_paths_text_and_references_are_all_accepted() -> None:
    ref = WeightsRef("models/x.safetensors")

    assert as_ref(Path("models") / "x.safetensors") == as_ref("models/x.safetensors") == as_ref(ref) == ref


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_existing_path_resolves_to_itself(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.safetensors"
    path.touch() if kind == "file" else path.mkdir()

    assert WeightsRef(str(path)).resolve() == path


def test_a_missing_path_says_what_is_possible(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nowhere\.pth: no such file.*owner/repo@revision:file"):
        WeightsRef(str(tmp_path / "nowhere.pth")).resolve()


@pytest.mark.parametrize("file", ["model.safetensors", "vae", ""])
def test_what_is_not_in_the_local_cache_is_an_error_offline(file: str) -> None:
    with pytest.raises(WeightsError, match=r"nobody-here/nothing@main.*hf auth login"):
        WeightsRef(f"nobody-here/nothing@main:{file}").resolve(offline=True)


def test_a_name_the_hub_cannot_have_is_a_weights_error() -> None:
    with pytest.raises(WeightsError, match="download failed"):
        WeightsRef("--/..@main:model.safetensors").resolve(offline=True)
