"""Copies of a run's files on the Hub while it runs: in the background, and never a reason for the run to end."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, Protocol, get_args

from musubi.core.errors import ConfigError, Issue, shown
from musubi.core.events import Event, Finished, Saved, Started
from musubi.core.fields import one_of
from musubi.hub.publish import check_repo
from musubi.team import Team

logger = logging.getLogger(__name__)

Uploaded = Literal["lora", "model", "best"]


class UploadApi(Protocol):
    """The part of ``huggingface_hub.HfApi`` that uploading needs."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> object:
        """Make a repository unless it is there."""
        ...

    def upload_file(self, *, repo_id: str, path_or_fileobj: Path, path_in_repo: str, commit_message: str) -> object:
        """Upload a file as one commit."""
        ...

    def upload_folder(self, *, repo_id: str, folder_path: Path, path_in_repo: str, commit_message: str) -> object:
        """Upload a folder as one commit."""
        ...


class UploadCallback:
    """Upload what a run saves to a repository on the Hub, one file after another, while training goes on.

    Each file is put aside in the moment it is saved, so that it arrives whole even if the run replaces or removes it
    meanwhile. An upload that fails is warned of, and the run goes on. At the run's end this waits for what is under
    way. The access token is the one of ``hf auth login``; it is neither read nor kept here. To publish a LoRA with a
    page and samples, see ``push``.

    Args:
        repo: ``owner/name``; made if it does not exist.
        private: Whether only you can see a newly made repository.
        what: Which files: ``lora`` (``model``, where the model itself is trained) those that are saved on the way and
            at the end, ``best`` those of the best validation loss.
        states: Whether folders to resume from are uploaded, too.
        api: Stands in for ``huggingface_hub.HfApi()``.

    Raises:
        ConfigError: The repository's name is not acceptable, or there is no such kind of file.

    Example:
        >>> from musubi import hub
        >>> copies = hub.UploadCallback("me/clay-style-run")
        >>> result = trainer.run(on=[copies])  # doctest: +SKIP
    """

    def __init__(
        self,
        repo: str,
        *,
        private: bool = True,
        what: Collection[Uploaded] = ("lora", "model", "best"),
        states: bool = False,
        api: UploadApi | None = None,
    ) -> None:
        check_repo(repo)
        problems = [problem for kind in what if (problem := one_of(*get_args(Uploaded))(kind)) is not None]
        if problems:
            raise ConfigError("UploadCallback", [Issue("what", problem) for problem in problems])
        self._repo, self._private, self._api = repo, private, api
        self._wanted = {*what, *(["state"] if states else [])}
        self._pool: ThreadPoolExecutor | None = None
        self._made = False

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self._start()
            case Saved(step=step, path=path, what=what) if what in self._wanted and self._pool is not None:
                self._put(self._pool, path, step)
            case Finished():
                self.close()
            case _:
                pass

    def close(self) -> None:
        """Wait for the uploads that are under way; safe to call again."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True)

    def _start(self) -> None:
        self.close()
        if Team().leads:
            self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="musubi-upload")

    def _put(self, pool: ThreadPoolExecutor, path: Path, step: int) -> None:
        try:
            aside = _aside(path)
        except OSError as error:
            logger.warning("%s is not uploaded: it cannot be put aside (%s)", shown(path), type(error).__name__)
            return
        pool.submit(self._upload, aside, path.name, step)

    def _upload(self, aside: Path, name: str, step: int) -> None:
        """Upload what was put aside, then remove it."""
        try:
            self._send(aside / name, f"Step {step}: {name}")
        except Exception as error:  # noqa: BLE001  # whatever the network and the Hub's client raise
            logger.warning("%s was not uploaded to %s: %s", name, self._repo, _reason(error))
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _send(self, path: Path, message: str) -> None:
        api = self._api = self._api or _hub()
        if not self._made:
            api.create_repo(self._repo, private=self._private, exist_ok=True)
            self._made = True
        if path.is_dir():
            api.upload_folder(repo_id=self._repo, folder_path=path, path_in_repo=path.name, commit_message=message)
        else:
            api.upload_file(repo_id=self._repo, path_or_fileobj=path, path_in_repo=path.name, commit_message=message)


def _aside(path: Path) -> Path:
    """Return a new folder beside a file or folder that holds it, too: by links, which cost nothing, or else copied."""
    folder = Path(tempfile.mkdtemp(prefix=".upload-", dir=path.parent))
    try:
        if path.is_dir():
            shutil.copytree(path, folder / path.name, copy_function=_link)
        else:
            _link(path, folder / path.name)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _link(source: Path | str, target: Path | str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def _reason(error: Exception) -> str:
    """Say what went wrong without the error's own words, in which a request's headers may stand."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return type(error).__name__ + (f" (HTTP {status})" if status else "")


def _hub() -> UploadApi:
    from huggingface_hub import HfApi

    return HfApi()
