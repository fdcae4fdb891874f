"""LoRA files as values: loaded from any layout, changed, combined, and saved in any layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import attrs
from torch import Tensor

from musubi.architecture import Architecture
from musubi.core import atomic
from musubi.core.errors import ConfigError, Issue, WeightsError, shown
from musubi.core.notebook import card
from musubi.keymap import KeyMap
from musubi.networks import combine, extract, facts, fingerprint, keys, post_hoc
from musubi.networks.binding import ModelNames, bound, in_parts
from musubi.networks.convert import Precision, cast, written
from musubi.networks.keys import LAYOUTS, KeyLayout, LayoutName
from musubi.networks.merge import Merge
from musubi.networks.peft_settings import PEFT_METADATA
from musubi.networks.reading import modules_in, read_safetensors
from musubi.networks.resize import Ranks, resized
from musubi.networks.summary import Summary, summarised
from musubi.networks.weights import AdapterWeights

if TYPE_CHECKING:
    from musubi.networks.check import Check

Naming = Literal["original", "library", "flat"]
Weighted = tuple["LoRAFile", float]
"""A LoRA and how strongly it counts."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LoRAFile:
    """Trained adapters as a value: what one file holds, or what is about to be written.

    ``modules`` are keyed by ORIGINAL dotted module name once the file is bound to a ``model``. Until then names are as
    the file has them (``naming``): a layout with underscores (``lora_unet_...``) gives flat ones, and the ``diffusers``
    layout gives diffusers' ones. Merging and attaching need no binding; other layouts do. ``layout`` is the one that
    the file had, None for a fresh one.

    Example:
        >>> from musubi import LoRAFile, Wan
        >>> lora = LoRAFile.load("style.safetensors", Wan.t2v_14b())  # doctest: +SKIP
        >>> lora.resized(rank=8).save("style-small.safetensors")  # doctest: +SKIP
    """

    modules: Mapping[str, AdapterWeights]
    metadata: Mapping[str, str] = attrs.field(factory=dict)
    layout: LayoutName | None = None
    naming: Naming = "original"
    model: Architecture | None = None

    @classmethod
    def load(cls, path: Path | str, model: Architecture | Iterable[str] | None = None) -> LoRAFile:
        """Read a ``.safetensors`` file of any known layout and kind.

        Args:
            path: The file.
            model: What the result is bound to: an architecture, or the model's original module names.

        Raises:
            WeightsError: The file cannot be read, is incomplete, holds something else than adapters of a denoiser, or
                is for another model.
        """
        tensors, metadata = read_safetensors(Path(path))
        layout = keys.layout_of(tensors)
        file = cls(
            modules=modules_in(tensors, metadata, where=shown(path)),
            metadata={key: value for key, value in metadata.items() if key != PEFT_METADATA},
            layout=layout,
            naming="flat" if LAYOUTS[layout].joint == "_" else "library" if LAYOUTS[layout].library else "original",
        )
        return file if model is None else file.bind(model)

    @classmethod
    def combine(cls, parts: Sequence[Weighted], *, rank: Ranks | None = None, keep: float | None = None) -> LoRAFile:
        """Return one LoRA that does what several do together, each at its weight.

        Without ``rank`` and ``keep`` the result is exact: its rank is the sum of the ranks. With them it is the nearest
        one of that size, which is also the way for LoHa and LoKr. Metadata in which all agree are kept.

        Raises:
            ConfigError: There is nothing to combine.
            WeightsError: Files name modules differently, are not of one size, or are no LoRAs and no size is given.
        """
        if not parts:
            raise ConfigError("combine", [Issue("", "there are no files", "give [(file, weight), ...]")])
        same, model = _alike([file for file, _ in parts])
        terms = [(file.modules, weight) for file, (_, weight) in zip(same, parts, strict=True)]
        modules = combine.combined(terms, rank, keep)
        metadata = facts.resized(combine.shared_metadata([file.metadata for file in same]), modules)
        return attrs.evolve(same[0], modules=modules, metadata=metadata, model=model)

    @classmethod
    def average(
        cls,
        files: Sequence[LoRAFile | Path | str],
        *,
        decay: float | tuple[float, float] = 0.95,
        sigma_rel: float | None = None,
    ) -> LoRAFile:
        """Return the average over files that one run saved, oldest first, matrix by matrix and in float32.

        Every file counts, the first one, too (the reference's power form discards it).

        Args:
            files: At least two, of one run, in the order of training.
            decay: How much of the average so far each further file leaves: one number, or where it begins and ends.
            sigma_rel: Relative width of a power profile instead (EDM2's post-hoc EMA), at most 0.3003: 0.05 is nearly
                the last file alone, 0.2887 the plain mean.

        Raises:
            ConfigError: A number is out of range, or there are fewer than two files.
            WeightsError: A file cannot be read, or they differ in modules, shapes or alphas.
        """
        if len(files) < 2:
            raise ConfigError("average", [Issue("files", f"must be at least 2, got {len(files)}")])
        same, model = _alike([file if isinstance(file, LoRAFile) else cls.load(file) for file in files])
        first, last = decay if isinstance(decay, tuple) else (decay, decay)
        linear = post_hoc.linear_decays(len(files), first, last)
        decays = linear if sigma_rel is None else post_hoc.power_decays(len(files), sigma_rel)
        modules = post_hoc.averaged([file.modules for file in same], decays)
        return attrs.evolve(same[0], modules=modules, metadata=same[-1].metadata, model=model)

    @classmethod
    def extract(
        cls,
        pairs: Iterable[extract.Pair],
        *,
        rank: int = 16,
        keep: float | None = None,
        clamp: float | None = None,
        model: Architecture | None = None,
    ) -> LoRAFile:
        """Return the LoRA that turns one checkpoint's weights into another's, as nearly as its rank allows.

        ``musubi.extract_lora`` does it for two checkpoint files.

        Args:
            pairs: (original module name, weight before, weight after), one module at a time.
            rank: The most that a module gets.
            keep: The share of each difference's norm to keep, if less rank is enough for that.
            clamp: Cut both matrices to plus and minus this quantile of all their values, which keeps outliers out.
            model: The architecture that the names are of.
        """
        modules = extract.extracted(pairs, rank=rank, keep=keep, clamp=clamp)
        return cls(modules=modules, metadata=facts.resized({}, modules), model=model)

    def bind(
        self,
        model: Architecture | Iterable[str],
        *,
        keymap: KeyMap | None = None,
        rows: Mapping[str, Sequence[int]] | None = None,
    ) -> LoRAFile:
        """Return the same weights under a model's original module names, in the model's order.

        Adapters of the parts of a fused module, as diffusers trains them, become one adapter with the same effect.

        Args:
            model: An architecture, or the original dotted names of the modules that can be adapted.
            keymap: With names: lets a file with the library's names be understood, too.
            rows: With names: how many rows each part of a fused module has, for files with adapters of some parts only.

        Raises:
            WeightsError: The file has modules that the model lacks; the nearest names are given.
        """
        if not isinstance(model, Architecture):
            names = ModelNames(originals=tuple(model), keymap=keymap or KeyMap(()), part_rows=rows or {})
            return attrs.evolve(self, modules=bound(self.modules, names), naming="original")
        names = _names(model)
        modules = bound(self.modules, names) if names.originals else self.modules
        return attrs.evolve(self, modules=modules, naming="original", model=model)

    def get(self, module: str) -> AdapterWeights | None:
        """Return the weights for an original dotted name, however the file spells it."""
        return self.modules.get(module) or self.modules.get(keys.flat(module))

    @property
    def names(self) -> tuple[str, ...]:
        """The adapted modules."""
        return tuple(self.modules)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What sorts of adapters there are: ``lora``, ``dora``, ``loha``, ``lokr``."""
        return tuple(sorted({weights.kind for weights in self.modules.values()}))

    @property
    def rank(self) -> int:
        """The largest rank of any module."""
        return max((weights.rank for weights in self.modules.values()), default=0)

    @property
    def zero_effect(self) -> bool:
        """Whether the weights change nothing, as before the first training step."""
        return all(weights.zero_effect for weights in self.modules.values())

    @property
    def fingerprint(self) -> str:
        """A hash of module names and matrices: the same in every layout and with any metadata.

        Rounding to half precision makes other weights, and so another fingerprint.
        """
        return fingerprint.of_modules(self.modules)

    def scaled(self, weight: float) -> LoRAFile:
        """Return the same adapters at ``weight`` times their strength.

        Raises:
            WeightsError: A module is a DoRA, which no change of its matrices makes weaker or stronger.
        """
        decomposed = [name for name, weights in self.modules.items() if weights.kind == "dora"]
        if decomposed:
            hint = "give the weight where the LoRA is used: with_lora(file, weight=...)"
            raise WeightsError("cannot scale the LoRA", [Issue(decomposed[0], "is a DoRA", hint)])
        return attrs.evolve(self, modules={name: weights.scaled(weight) for name, weights in self.modules.items()})

    def resized(self, *, rank: Ranks | None = None, keep: float | None = None) -> LoRAFile:
        """Return the nearest LoRA of another size; LoHa and LoKr become LoRAs.

        The singular values are found in the factors, in float64; the full deltas are never built.

        Args:
            rank: The most that a module may have: one number, or numbers by pattern (full match on module names).
            keep: The share of each delta's norm to keep, e.g. 0.95: every module gets the least rank that does.

        Raises:
            ConfigError: Neither is given, or a value makes no sense.
            WeightsError: A module is a DoRA or a convolution.
        """
        modules = resized(self.modules, rank, keep)
        return attrs.evolve(self, modules=modules, metadata=facts.resized(self.metadata, modules))

    def check(self, model: Architecture | None = None, layout: LayoutName | None = None) -> Check:
        """Return which programs take how much of this file in a layout (by default its own, or what ``save`` writes).

        Asks diffusers' own loader; ComfyUI, the reference and this library by their rules. Takes seconds and little
        memory, whatever the model's size.

        Raises:
            ConfigError: The file is bound to no model and none is given.
            WeightsError: The file is for another model.
        """
        from musubi.networks.check import checked

        owner = model or self.model
        if owner is None:
            raise ConfigError("check", [Issue("model", "is missing", "give the architecture: check(model)")])
        return checked(self.bind(owner), owner, layout or self.layout or owner.interchange.layout)

    def summary(self) -> Summary:
        """Return ranks, alphas and norms of the deltas by groups of modules; prints as a table, has a ``plot()``."""
        return summarised(self.modules)

    def merge_hook(self, weight: float = 1.0) -> Merge:
        """Return a hook that adds these adapters to the base weights while they are loaded.

        To merge several files with one rounding, give them to ``Merge`` together.
        """
        return Merge(((self, weight),))

    def tensors(self, layout: LayoutName | None = None, dtype: Precision = "float32") -> dict[str, Tensor]:
        """Return what ``save`` writes, by tensor name; tensors may share their memory with this file's.

        Raises:
            WeightsError: The layout needs names that only a model can give, or cannot hold this kind of adapter.
        """
        chosen = layout or self.default_layout
        form = LAYOUTS[chosen]
        result: dict[str, Tensor] = {}
        for name, weights in self._named(form, chosen).items():
            for role, tensor in written(weights, form, dtype).items():
                key = form.key(name, role)
                result[key] = tensor.clone() if form.library else tensor.contiguous()
        return result

    def save(self, path: Path | str, *, layout: LayoutName | None = None, dtype: Precision = "float32") -> Path:
        """Write the file atomically and return its path.

        Args:
            path: Where to; parent folders are made.
            layout: How tensors are named (see ``musubi.networks.keys.LAYOUTS``); None takes the one that most programs
                load whole for the model that the file is bound to, else the file's own.
            dtype: Precision of the matrices; ``as is`` changes nothing.

        Raises:
            ConfigError: The name does not end in ``.safetensors``, or the file cannot be written.
            WeightsError: The layout needs names that only a model can give, or cannot hold this kind of adapter.

        Absolute paths in the metadata are cut to their last part; the hashes ``sshs_model_hash``,
        ``sshs_legacy_hash`` and ``musubi.fingerprint`` are computed anew.
        """
        if Path(path).suffix != ".safetensors":
            raise ConfigError("save", [Issue(shown(path), "a LoRA is a .safetensors file", "give it that ending")])
        tensors = self.tensors(layout, dtype)
        rounded = {name: cast(weights, dtype) for name, weights in self.modules.items()}
        metadata = {**fingerprint.publishable(self.metadata), fingerprint.KEY: fingerprint.of_modules(rounded)}
        with atomic.replacing(path) as temporary:
            fingerprint.write(temporary, tensors, metadata)
        return Path(path)

    @property
    def default_layout(self) -> LayoutName:
        """What ``save`` writes unasked: the model's layout that most programs load whole, else the file's own."""
        return self.model.interchange.layout if self.model is not None else self.layout or "comfy"

    def _named(self, form: KeyLayout, layout: LayoutName) -> Mapping[str, AdapterWeights]:
        """Return the modules by the names that a layout has, without its prefix."""
        if self.model is not None and form.library:
            return in_parts(self.modules, _names(self.model))
        wanted: Naming = "library" if form.library else "original"
        if self.naming == wanted or (form.joint == "_" and self.naming == "flat"):
            return self.modules
        whose = "diffusers' module names" if form.library else "the checkpoint's dotted module names"
        hint = "bind() it to the architecture first, or keep the file's own layout"
        problem = Issue(next(iter(self.modules)), f"layout {layout!r} needs {whose}", hint)
        raise WeightsError("cannot save the LoRA", [problem])

    def __repr__(self) -> str:
        kinds = "/".join(self.kinds) or "nothing"
        owner = f", bound to {self.model.title}" if self.model is not None else ""
        return f"<LoRAFile of {len(self.modules)} modules, {kinds}, rank {self.rank}, layout {self.layout!r}{owner}>"

    def _repr_html_(self) -> str:
        return card("LoRAFile", facts.of(self.modules, self.metadata, self.layout))


def _names(model: Architecture) -> ModelNames:
    sizes = model.linears()
    return ModelNames(originals=tuple(sizes), keymap=model.keys, sizes=sizes, swapped=model.interchange.swapped)


def _alike(files: Sequence[LoRAFile]) -> tuple[list[LoRAFile], Architecture | None]:
    """Return the files under the same names: bound to the model of any of them that is bound, else as they are."""
    model = next((file.model for file in files if file.model is not None), None)
    if model is None:
        return list(files), None
    return [file if file.model is not None else file.bind(model) for file in files], model
