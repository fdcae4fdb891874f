from __future__ import annotations

import logging
import threading
from pathlib import Path

import attrs
import pytest

from musubi import ConfigError, Finished, Saved, Started, hub

STARTED, FINISHED = Started(step=0, total=9, items=1, trainable=1), Finished(step=9, reason="completed")
SECRET = "hf_" + "x" * 34


@attrs.define
class Recorder:
    """Stands where ``HfApi`` stands; waits for ``open`` before it takes anything."""

    made: list[tuple[str, bool]] = attrs.field(factory=list)
    uploaded: dict[str, bytes] = attrs.field(factory=dict)
    messages: list[str] = attrs.field(factory=list)
    failure: Exception | None = None
    open: threading.Event = attrs.field(factory=threading.Event)

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> object:
        assert exist_ok
        self.made.append((repo_id, private))
        return None

    def upload_file(self, *, repo_id: str, path_or_fileobj: Path, path_in_repo: str, commit_message: str) -> object:
        assert self.open.wait(10)
        if self.failure is not None:
            raise self.failure
        self.uploaded[path_in_repo] = path_or_fileobj.read_bytes()
        self.messages.append(commit_message)
        return None

    def upload_folder(self, *, repo_id: str, folder_path: Path, path_in_repo: str, commit_message: str) -> object:
        assert self.open.wait(10)
        for file in folder_path.rglob("*"):
            self.uploaded[f"{path_in_repo}/{file.relative_to(folder_path).as_posix()}"] = file.read_bytes()
        return None


def lora(folder: Path, name: str, content: bytes = b"weights") -> Saved:
    path = folder / name
    path.write_bytes(content)
    return Saved(step=3, path=path, what="best" if "best" in name else "lora")


def state(folder: Path) -> Saved:
    path = folder / "clay-state"
    path.mkdir()
    (path / "run.json").write_text("{}", encoding="utf-8")
    return Saved(step=3, path=path, what="state")


def test_files_arrive_in_order_while_the_run_goes_on(tmp_path: Path) -> None:
    api = Recorder()
    upload = hub.UploadCallback("me/clay", api=api)

    upload(STARTED)
    for name in ("clay-000001.safetensors", "clay-best.safetensors"):
        upload(lora(tmp_path, name))
    assert not api.uploaded
    api.open.set()
    upload(FINISHED)

    assert api.made == [("me/clay", True)]
    assert list(api.uploaded) == ["clay-000001.safetensors", "clay-best.safetensors"]
    assert api.messages[0] == "Step 3: clay-000001.safetensors"


def test_a_file_that_is_removed_or_replaced_meanwhile_arrives_as_it_was_saved(tmp_path: Path) -> None:
    api = Recorder()
    upload = hub.UploadCallback("me/clay", api=api)

    upload(STARTED)
    upload(lora(tmp_path, "clay-best.safetensors", b"first"))
    (tmp_path / "new").write_bytes(b"second")
    (tmp_path / "new").replace(tmp_path / "clay-best.safetensors")
    upload(lora(tmp_path, "gone.safetensors"))
    (tmp_path / "gone.safetensors").unlink()
    api.open.set()
    upload(FINISHED)

    assert api.uploaded == {"clay-best.safetensors": b"first", "gone.safetensors": b"weights"}
    assert [path.name for path in tmp_path.iterdir()] == ["clay-best.safetensors"]


def test_states_are_uploaded_only_if_asked_for(tmp_path: Path) -> None:
    saved = state(tmp_path)
    quiet, whole = Recorder(), Recorder()

    for api, states in ((quiet, False), (whole, True)):
        api.open.set()
        upload = hub.UploadCallback("me/clay", private=False, states=states, api=api)
        for event in (STARTED, saved, FINISHED):
            upload(event)

    assert not quiet.uploaded
    assert whole.uploaded == {"clay-state/run.json": b"{}"}
    assert whole.made == [("me/clay", False)]


def test_only_the_kinds_that_were_asked_for_are_uploaded(tmp_path: Path) -> None:
    api = Recorder()
    api.open.set()
    upload = hub.UploadCallback("me/clay", what=["best"], api=api)

    for event in (STARTED, lora(tmp_path, "a.safetensors"), lora(tmp_path, "a-best.safetensors"), FINISHED):
        upload(event)

    assert list(api.uploaded) == ["a-best.safetensors"]


def test_a_failed_upload_is_warned_of_without_a_token_and_the_next_one_is_tried(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api = Recorder(failure=OSError(f"401 for Authorization: Bearer {SECRET}"))
    api.open.set()
    upload = hub.UploadCallback("me/clay", api=api)

    with caplog.at_level(logging.DEBUG, logger="musubi"):
        for event in (STARTED, lora(tmp_path, "a.safetensors"), lora(tmp_path, "b.safetensors"), FINISHED):
            upload(event)

    assert [record.getMessage() for record in caplog.records] == [
        "a.safetensors was not uploaded to me/clay: OSError",
        "b.safetensors was not uploaded to me/clay: OSError",
    ]
    assert SECRET not in caplog.text


def test_a_file_that_is_gone_already_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    upload = hub.UploadCallback("me/clay", api=Recorder())

    for event in (STARTED, Saved(step=1, path=tmp_path / "gone.safetensors", what="lora"), FINISHED):
        upload(event)

    assert "cannot be put aside (FileNotFoundError)" in caplog.text
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_uploaded_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="must be owner/name"):
        hub.UploadCallback("clay")
    with pytest.raises(ConfigError, match="did you mean 'lora'"):
        hub.UploadCallback("me/clay", what=["loras"])  # type: ignore[list-item]


def test_nothing_happens_outside_a_run(tmp_path: Path) -> None:
    upload = hub.UploadCallback("me/clay", api=Recorder())

    upload(lora(tmp_path, "a.safetensors"))
    upload(FINISHED)
    upload.close()

    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
