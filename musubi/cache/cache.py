"""A folder of encoded items, as a value: where it is and for which model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Self, cast

import attrs
from typing_extensions import TypeVar

from musubi.architecture import Architecture
from musubi.cache import manifest as manifests
from musubi.cache.building.dtypes import EncoderDtype, encoder_dtype
from musubi.cache.building.policies import check_encoders, check_memory
from musubi.cache.manifest import CachedItem, Manifest
from musubi.core.control import CancelToken
from musubi.core.errors import CacheError, ConfigError, Issue, shown
from musubi.core.events import Callback
from musubi.core.fields import as_path
from musubi.core.notebook import card
from musubi.core.spec import Spec
from musubi.data.dataset import Dataset
from musubi.data.sample import Split
from musubi.memory.policy import MemoryPolicy

if TYPE_CHECKING:
    import torch

    from musubi.cache.diff import Diff
    from musubi.cache.loader import Loader
    from musubi.team import Team

A_co = TypeVar("A_co", bound=Architecture, covariant=True, default=Architecture)


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
        """Return the items, those held out included; raises ``CacheError`` as ``manifest`` does."""
        return self.manifest().items

    def build(
        self,
        dataset: Dataset | Iterable[Dataset],
        *,
        on: Iterable[Callback] = (),
        cancel: CancelToken | None = None,
        device: str | None = None,
        dtype: EncoderDtype | None = None,
        memory: Sequence[MemoryPolicy] | None = None,
        strict: bool = False,
        progress: bool = True,
    ) -> Self:
        """Encode what is new or has changed and return the cache, which then holds exactly the items of the dataset.

        Several datasets, each with its own resolution, batch size and repeats, may share a cache. Components are loaded
        a stage at a time. A build that was cancelled or killed is continued by the next; entries that are no longer
        needed stay in the folder until ``prune``. Items that cannot be used are told to ``on`` as ``Warned``, kept in
        ``dropped`` and left out; with ``strict`` they are an error. ``device`` is "cuda" if there is one, else "cpu";
        ``dtype`` of the encoders is that of an earlier build, else bfloat16 on CUDA and float32 on a CPU.

        ``memory`` are policies for the encoders (``TextEncoderMemory``, ``VAETiling``). Those that change what is
        encoded are part of an entry's identity; None keeps those of an earlier build, ``()`` means none of them.

        Under ``accelerate launch`` or ``torchrun`` the processes share the work: call this in all of them. A second
        build of the same cache waits for the first to end.

        Raises:
            ConfigError: There is no such device or dtype, or no dataset, or ``memory`` does not fit the model.
            DataError: Nothing is usable, or, with ``strict``, not everything is; lists all problems.
            CacheError: The folder holds another architecture's cache, or cannot be written.
        """
        from musubi.cache.building.build import Builder
        from musubi.cache.building.told import Teller
        from musubi.team import Team

        team = Team()
        encoder_dtype(dtype, None, device="cpu")
        where = _device(device, team)
        check_memory(memory, self.model)
        check_encoders(memory, self.model, device=where)
        tell = Teller(tuple(on))
        complete = Builder(
            folder=self.path,
            model=self.model,
            datasets=_datasets(dataset),
            team=team,
            device=where,
            dtype=dtype,
            memory=memory,
            strict=strict,
            tell=tell,
            cancel=cancel or CancelToken(),
            progress=progress,
        ).run()
        if not complete:
            tell.warn("cancelled; what is encoded is kept, build again to go on")
        return self

    def diff(
        self,
        dataset: Dataset | Iterable[Dataset],
        *,
        dtype: EncoderDtype | None = None,
        memory: Sequence[MemoryPolicy] | None = None,
    ) -> Diff:
        """Return what building a dataset would change; encodes nothing, loads no model and writes nothing.

        Raises:
            ConfigError: There is no such dtype, or no dataset, or ``memory`` does not fit the model.
            DataError: Nothing is usable.
            CacheError: The folder holds another architecture's cache, or its manifest is damaged.
            WeightsError: An encoder's files cannot be read.
        """
        import torch

        from musubi.cache.diff import compare

        before = self.manifest() if self.exists else None
        known = None if before is None else before.dtype
        chosen = encoder_dtype(dtype, known, device="cuda" if torch.cuda.is_available() else "cpu")
        check_memory(memory, self.model)
        return compare(self.path, self.model, _datasets(dataset), before, dtype=chosen, memory=memory)

    def prune(self, *, dry_run: bool = False, on: Iterable[Callback] = ()) -> tuple[str, ...]:
        """Delete the entries that nothing needs any more and return their names; with ``dry_run`` only name them.

        Only files that a build of this architecture's cache wrote are deleted. A build that is running is waited for.

        Raises:
            CacheError: The cache is not built or is empty, or a file may not be deleted.
        """
        from musubi.cache.building.lock import locked
        from musubi.cache.building.told import Teller
        from musubi.cache.prune import leftovers, prune

        if dry_run:
            return leftovers(self.path, self.manifest())
        self.manifest()
        with locked(self.path, tell=Teller(tuple(on)).warn):
            return prune(self.path, self.manifest())

    def loader(
        self,
        *,
        seed: int = 0,
        batch_size: int | None = None,
        split: Split = "train",
        rank: int = 0,
        world: int = 1,
    ) -> Loader:
        """Return what draws batches of the items of a ``split``; ``batch_size`` None means that of the dataset.

        Raises:
            CacheError: The cache is not built, or a file is missing.
        """
        from musubi.cache.loader import Loader

        self.manifest()
        return Loader(self.path, seed=seed, batch_size=batch_size, split=split, rank=rank, world=world)

    def verify(self, *, progress: bool = True) -> tuple[Issue, ...]:
        """Read every file and return an issue for each that is missing or not what was written.

        Raises:
            CacheError: The cache is not built, or its manifest is damaged.
        """
        from musubi.cache.verify import verify

        return verify(self.path, self.manifest(), progress=progress)

    def fingerprint_of_content(self) -> str:
        """Return a short hash of what training sees; raises ``CacheError`` as ``manifest`` does."""
        return self.manifest().content

    def summary(self) -> str:
        """Return a few lines on what the cache holds."""
        return "\n".join(f"{name}: {value}" for name, value in self._facts())

    def _facts(self) -> list[tuple[str, object]]:
        from musubi.cache.summary import facts_of

        facts: list[tuple[str, object]] = [("path", shown(self.path)), ("architecture", self.model.name)]
        try:
            return facts + facts_of(self.manifest())
        except CacheError as error:
            return [*facts, ("state", error)]

    def _repr_html_(self) -> str:
        return card(type(self).__name__, self._facts())


def _datasets(given: Dataset | Iterable[Dataset]) -> tuple[Dataset, ...]:
    """Return one or several datasets as several."""
    datasets = tuple(cast(Iterable[object], (given,) if isinstance(given, Dataset | str | Path) else given))
    fitting = tuple(one for one in datasets if isinstance(one, Dataset))
    if not fitting or len(fitting) < len(datasets):
        got = ", ".join(type(one).__name__ for one in datasets) or "none"
        raise ConfigError("Cache.build", [Issue("dataset", f"must be a Dataset or several, got {got}")])
    return fitting


def _device(name: str | None, team: Team) -> torch.device:
    """Return the device that was asked for, or the best there is; several processes get theirs from the launcher."""
    import torch

    from musubi.memory.device import named_device, usable_device

    if team.count == 1:
        return usable_device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    if name == "cpu":
        return torch.device("cpu")
    given = torch.device(team.device)
    if name is not None and named_device(name).type != given.type:
        hint = "leave device out: the launcher gives every process its own"
        raise ConfigError("no such device", [Issue("device", f"is {name!r}, but the launcher gave {given}", hint)])
    return given
