"""Fetching: one file, or what an architecture would fetch and how large it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from musubi.core.errors import Issue, WeightsError
from musubi.core.notebook import card
from musubi.core.refs import WeightsRef, as_ref

if TYPE_CHECKING:
    from huggingface_hub.file_download import DryRunFileInfo

    from musubi.architecture import Architecture

_GB = 1e9


@attrs.frozen(kw_only=True)
class Download:
    """What one component would cost: bytes in all, and bytes still to be fetched."""

    component: str
    ref: WeightsRef
    size: int
    missing: int


@attrs.frozen
class Downloads:
    """What an architecture would fetch, component by component."""

    parts: tuple[Download, ...]

    @property
    def missing(self) -> int:
        """Bytes still to be fetched."""
        return sum(part.missing for part in self.parts)

    def __iter__(self) -> Iterator[Download]:
        return iter(self.parts)

    def __str__(self) -> str:
        lines = [f"{p.component:<14}{p.size / _GB:8.2f} GB  {_state(p):<10}  {p.ref}" for p in self.parts]
        return "\n".join([*lines, f"{'to fetch':<14}{self.missing / _GB:8.2f} GB"])

    def _repr_html_(self) -> str:
        rows = [(part.component, f"{part.size / _GB:.2f} GB, {_state(part)}: {part.ref}") for part in self.parts]
        return card("Downloads", [*rows, ("to fetch", f"{self.missing / _GB:.2f} GB")])


def pull(ref: WeightsRef | Path | str, *, offline: bool = False) -> Path:
    """Fetch a file or folder unless it is in the local cache, and return its path.

    Args:
        ref: ``owner/repo@revision:file``, or a local path, which is returned as it is.
        offline: Look into the local cache only.

    Raises:
        WeightsError: The path does not exist, or the Hub did not deliver.

    Example:
        >>> from musubi import hub
        >>> hub.pull("me/clay-style@main:clay.safetensors")  # doctest: +SKIP
    """
    return as_ref(ref).resolve(offline=offline)


def plan_download(
    architecture: Architecture, *, ask: Callable[[WeightsRef], Iterable[DryRunFileInfo]] | None = None
) -> Downloads:
    """Return the sizes of everything an architecture needs; asks the Hub, fetches nothing.

    ``ask`` stands in for the Hub's dry run.

    Raises:
        WeightsError: A local file does not exist, or the Hub did not answer.
    """
    names = dict.fromkeys([*architecture.default_weights(), *architecture.weights])
    return Downloads(tuple(_cost(name, architecture.weight(name), ask or _dry_run) for name in names))


def _cost(component: str, ref: WeightsRef, ask: Callable[[WeightsRef], Iterable[DryRunFileInfo]]) -> Download:
    if not ref.on_hub:
        return Download(component=component, ref=ref, size=_local_size(ref.resolve()), missing=0)
    files = list(ask(ref))
    return Download(
        component=component,
        ref=ref,
        size=sum(file.file_size or 0 for file in files),
        missing=sum(file.file_size or 0 for file in files if file.will_download),
    )


def _local_size(path: Path) -> int:
    files = [path] if path.is_file() else [member for member in path.rglob("*") if member.is_file()]
    return sum(file.stat().st_size for file in files)


def _dry_run(ref: WeightsRef) -> list[DryRunFileInfo]:
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    repo, revision, file = ref.parts
    try:
        if Path(file).suffix:
            return [hf_hub_download(repo, file, revision=revision, dry_run=True)]
        patterns = [f"{file}/**"] if file else None
        return list(snapshot_download(repo, revision=revision, allow_patterns=patterns, dry_run=True))
    except (HfHubHTTPError, OSError, ValueError) as error:
        hint = "check the name and the connection; log in with `hf auth login` for gated files"
        raise WeightsError("the Hub did not answer", [Issue(str(ref), type(error).__name__, hint)]) from None


def _state(part: Download) -> str:
    return "local" if not part.ref.on_hub else "to fetch" if part.missing else "cached"
