"""Where weights are: a local path, or a file or folder in a Hub repository at a revision."""

from __future__ import annotations

import re
from pathlib import Path

import attrs

from musubi.core.errors import Issue, WeightsError

_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[\w./-]+):(?P<file>[^:]*)")


@attrs.frozen
class WeightsRef:
    """Point to a checkpoint: ``path/to/file.safetensors``, or ``owner/repo@revision:path/in/repo``.

    An empty part after the colon means the whole repository. A local path is what does not have the Hub's form.

    Example:
        >>> from musubi.core.refs import WeightsRef
        >>> WeightsRef("Wan-AI/Wan2.1-T2V-14B@main:Wan2.1_VAE.pth").repo
        'Wan-AI/Wan2.1-T2V-14B'
    """

    location: str

    @property
    def on_hub(self) -> bool:
        """Whether this names a Hub repository."""
        return _HUB.fullmatch(self.location) is not None

    @property
    def repo(self) -> str | None:
        """The repository, or None for a local path."""
        return self.parts[0] if self.on_hub else None

    @property
    def parts(self) -> tuple[str, str, str]:
        """Repository, revision and file of a Hub reference."""
        match = _HUB.fullmatch(self.location)
        if match is None:
            raise WeightsError("weights", [Issue(self.location, "is a local path, not a file on the Hub")])
        return match["repo"], match["revision"], match["file"]

    @property
    def name(self) -> str:
        """A short name without directories: what artefacts may store (never an absolute path)."""
        return self.location if self.on_hub else re.split(r"[/\\]", self.location.rstrip("/\\"))[-1]

    def resolve(self, *, offline: bool = False) -> Path:
        """Return the local file or folder, downloading from the Hub where needed.

        Raises:
            WeightsError: The path does not exist, or the Hub did not deliver.
        """
        if not self.on_hub:
            path = Path(self.location)
            if not path.exists():
                hint = "give an existing file, or owner/repo@revision:file for the Hub"
                raise WeightsError("weights not found", [Issue(path.as_posix(), "no such file or folder", hint)])
            return path
        return _download(*self.parts, offline=offline)

    def __str__(self) -> str:
        return self.location


def as_ref(value: WeightsRef | Path | str) -> WeightsRef:
    """Return a reference for whatever a user may write for one."""
    if isinstance(value, WeightsRef):
        return value
    return WeightsRef(value.as_posix() if isinstance(value, Path) else value)


def _download(repo: str, revision: str, file: str, *, offline: bool) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        if Path(file).suffix:
            return Path(hf_hub_download(repo, file, revision=revision, local_files_only=offline))
        folder = snapshot_download(
            repo, revision=revision, allow_patterns=[f"{file}/**"] if file else None, local_files_only=offline
        )
        return Path(folder) / file
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        hint = "check the name and the connection; log in with `hf auth login` for gated files"
        issue = Issue(f"{repo}@{revision}:{file}", type(error).__name__, hint)
        raise WeightsError("download failed", [issue]) from error
