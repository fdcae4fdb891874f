"""A folder of encoded items, as a value: where it is and for which model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, Self, get_args

import attrs
from typing_extensions import TypeVar

from musubi.architecture import Architecture
from musubi.cache import manifest as manifests
from musubi.cache.manifest import CachedItem, Manifest
from musubi.core.control import CancelToken
from musubi.core.errors import CacheError, ConfigError, Issue, shown
from musubi.core.events import Callback, Warned
from musubi.core.fields import as_path, one_of
from musubi.core.notebook import card
from musubi.core.spec import Spec
from musubi.data.dataset import Dataset

if TYPE_CHECKING:
    import torch

    from musubi.cache.loader import Loader

A_co = TypeVar("A_co", bound=Architecture, covariant=True, default=Architecture)
EncoderDtype = Literal["float32", "bfloat16", "float16"]


@attrs.frozen
class Cache(Spec, Generic[A_co]):
    """The encoded items of datasets for one model, in a folder with a manifest that says what is in it.

    Nothing is read before a verb is called. A cache that was built before is used without its dataset.

    Example:
        >>> from musubi import Wan, WanCache
        >>> WanCache("cache/clips", model=Wan.t2v_14b()).exists
        False
    """

    path: Path = attrs.field(converter=as_path)
    model: A_co = attrs.field(kw_only=True)

    @property
    def exists(self) -> bool:
        """Whether the cache was built."""
        return manifests.exists(self.path)

    @property
    def dropped(self) -> tuple[Issue, ...]:
        """What the last build left out, and why; empty if the cache is not built."""
        return self.manifest().problems if self.exists else ()

    def manifest(self) -> Manifest:
        """Return what the cache holds.

        Raises:
            CacheError: It is not built, is damaged, or belongs to another architecture.
        """
        manifest = manifests.load(self.path)
        if manifest.architecture != self.model.name:
            message = f"holds a cache of {manifest.architecture}, not {self.model.name}"
            raise CacheError(
                "wrong cache", [Issue(shown(self.path), message, "open it with the model it was built for")]
            )
        return manifest

    def items(self) -> tuple[CachedItem, ...]:
        """Return the training items; raises ``CacheError`` as ``manifest`` does."""
        return self.manifest().items

    def build(
        self,
        dataset: Dataset,
        *,
        on: Iterable[Callback] = (),
        cancel: CancelToken | None = None,
        device: str | None = None,
        dtype: EncoderDtype | None = None,
        strict: bool = False,
        progress: bool = True,
    ) -> Self:
        """Encode what is new or has changed and return the cache, which then holds exactly the dataset's items.

        Components are loaded a stage at a time. A build that was cancelled or killed is continued by the next. Items
        that cannot be used are told to ``on`` as ``Warned``, kept in ``dropped`` and left out; with ``strict`` they are
        an error. ``device`` is "cuda" if there is one, else "cpu"; ``dtype`` of the encoders is that of an earlier
        build, else bfloat16 on CUDA and float32 on a CPU.

        Raises:
            ConfigError: There is no such device or dtype.
            DataError: Nothing is usable, or, with ``strict``, not everything is; lists all problems.
            CacheError: The folder holds another architecture's cache, or cannot be written.
        """
        import torch

        from musubi.cache.build import Builder
        from musubi.memory.device import usable_device

        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        listeners, token = tuple(on), cancel or CancelToken()
        complete = Builder(
            folder=self.path,
            model=self.model,
            dataset=dataset,
            device=usable_device(chosen),
            dtype=None if dtype is None else _encoder_dtype(dtype),
            strict=strict,
            on=listeners,
            cancel=token,
            progress=progress,
        ).run()
        if not complete:
            for callback in listeners:
                callback(Warned(message="cancelled; what is encoded is kept, build again to go on"))
        return self

    def loader(self, *, seed: int = 0, batch_size: int | None = None, rank: int = 0, world: int = 1) -> Loader:
        """Return what draws batches; ``batch_size`` None means that of the dataset.

        Raises:
            CacheError: The cache is not built, or a file is missing.
        """
        from musubi.cache.loader import Loader

        self.manifest()
        return Loader(self.path, seed=seed, batch_size=batch_size, rank=rank, world=world)

    def verify(self) -> tuple[Issue, ...]:
        """Read every file and return an issue for each that is missing or not what was written.

        Raises:
            CacheError: The cache is not built, or its manifest is damaged.
        """
        from musubi.cache import format as files
        from musubi.cache.loader import file_issue

        issues: list[Issue] = []
        for file in self.manifest().files:
            issue = file_issue(self.path, file)
            if issue is not None:
                issues.append(issue)
                continue
            try:
                files.load(self.path / file.name, sha256=file.sha256)
            except CacheError as error:
                issues += error.issues
        return tuple(issues)

    def fingerprint_of_content(self) -> str:
        """Return a short hash of what training sees; raises ``CacheError`` as ``manifest`` does."""
        return self.manifest().content

    def summary(self) -> str:
        """Return a few lines on what the cache holds."""
        return "\n".join(f"{name}: {value}" for name, value in self._facts())

    def _facts(self) -> list[tuple[str, object]]:
        facts: list[tuple[str, object]] = [("path", shown(self.path)), ("architecture", self.model.name)]
        try:
            manifest = self.manifest()
        except CacheError as error:
            return [*facts, ("state", error)]
        buckets = ", ".join(f"{label}: {count}" for label, count in manifest.buckets.items())
        return [
            *facts,
            ("items", len(manifest.items)),
            ("buckets", buckets),
            ("stages", ", ".join(manifest.stages)),
            ("encoded in", manifest.dtype),
            ("size on disk", f"{manifest.bytes / 2**20:.1f} MiB"),
            ("left out", len(manifest.problems)),
        ]

    def _repr_html_(self) -> str:
        return card(type(self).__name__, self._facts())


def _encoder_dtype(name: EncoderDtype) -> torch.dtype:
    import torch

    wrong = one_of(*get_args(EncoderDtype))(name)
    if wrong is not None:
        raise ConfigError("Cache.build", [Issue("dtype", wrong)])
    dtype: torch.dtype = getattr(torch, name)
    return dtype
