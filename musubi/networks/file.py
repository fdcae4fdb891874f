"""LoRA files: every layout read, the usual ones written, by the checkpoint's ORIGINAL module names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import attrs
import torch
from torch import Tensor

from musubi.core import atomic
from musubi.core.errors import ConfigError, Issue, WeightsError, shown
from musubi.core.fields import did_you_mean
from musubi.core.notebook import card
from musubi.keymap import KeyMap
from musubi.networks import fingerprint, keys
from musubi.networks.keys import LAYOUTS, LayoutName
from musubi.networks.merge import Merge
from musubi.networks.reading import PEFT_METADATA, modules_in, read_safetensors
from musubi.networks.weights import LoRAWeights

Precision = Literal["float32", "float16", "bfloat16", "as is"]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LoRAFile:
    """Trained adapters as a value: what one file holds, or what is about to be written.

    ``modules`` are keyed by ORIGINAL dotted module name. A file whose layout has only underscores (``lora_unet_...``)
    gives flat names until ``bind`` is told the model's modules; merging and attaching need no binding.
    """

    modules: Mapping[str, LoRAWeights]
    metadata: Mapping[str, str] = attrs.field(factory=dict)
    layout: LayoutName = "comfy"

    @classmethod
    def load(cls, path: Path | str, names: Iterable[str] | None = None) -> LoRAFile:
        """Read a ``.safetensors`` file of any known layout.

        Args:
            path: The file.
            names: The model's original module names; given, the result is bound to them.

        Raises:
            WeightsError: The file cannot be read, is incomplete, or holds something else than a LoRA.
        """
        tensors, metadata = read_safetensors(Path(path))
        file = cls(
            modules=modules_in(tensors, metadata, where=shown(path)),
            metadata={key: value for key, value in metadata.items() if key != PEFT_METADATA},
            layout=keys.layout_of(next(iter(tensors))),
        )
        return file if names is None else file.bind(names)

    def bind(self, names: Iterable[str], *, keymap: KeyMap | None = None) -> LoRAFile:
        """Return the same weights under a model's original module names, in the model's order.

        Args:
            names: Original dotted names of the modules that can be adapted.
            keymap: Given, a file with the library's names (as diffusers trains them) is understood too.

        Raises:
            WeightsError: The file has modules that the model lacks; the nearest names are given.
        """
        known = tuple(names)
        table = _identities(known, keymap)
        found = {table[keys.flat(name)]: weights for name, weights in self.modules.items() if keys.flat(name) in table}
        strangers = [name for name in self.modules if keys.flat(name) not in table]
        if strangers:
            raise WeightsError("the LoRA does not fit this model", _unknown(strangers, table, len(self.modules)))
        return attrs.evolve(self, modules={name: found[name] for name in known if name in found})

    def get(self, module: str) -> LoRAWeights | None:
        """Return the weights for an original dotted name, however the file spells it."""
        return self.modules.get(module) or self.modules.get(keys.flat(module))

    @property
    def names(self) -> tuple[str, ...]:
        """The adapted modules."""
        return tuple(self.modules)

    @property
    def rank(self) -> int:
        """The largest rank of any module."""
        return max((weights.rank for weights in self.modules.values()), default=0)

    @property
    def zero_effect(self) -> bool:
        """Whether the weights change nothing, as before the first training step."""
        return all(weights.zero_effect for weights in self.modules.values())

    def scaled(self, weight: float) -> LoRAFile:
        """Return the same adapters at ``weight`` times their strength."""
        return attrs.evolve(self, modules={name: weights.scaled(weight) for name, weights in self.modules.items()})

    def merge_hook(self, weight: float = 1.0) -> Merge:
        """Return a hook that adds these adapters to the base weights while they are loaded.

        To merge several files with one rounding, give them to ``Merge`` together.
        """
        return Merge(((self, weight),))

    def tensors(self, layout: LayoutName | None = None, dtype: Precision = "float32") -> dict[str, Tensor]:
        """Return what ``save`` writes, by tensor name.

        Raises:
            WeightsError: The layout needs dotted names and the file has none yet.
        """
        form = LAYOUTS[layout or self.layout]
        self._check_named(form.joint, layout or self.layout)
        result: dict[str, Tensor] = {}
        for name, weights in self.modules.items():
            ready = weights if dtype == "as is" else weights.to(getattr(torch, dtype))
            ready = ready if form.alpha else ready.folded()
            if form.alpha:
                result[form.key(name, "alpha")] = ready.alpha
            result[form.key(name, "down")] = ready.down.contiguous()
            result[form.key(name, "up")] = ready.up.contiguous()
        return result

    def save(self, path: Path | str, *, layout: LayoutName | None = None, dtype: Precision = "float32") -> Path:
        """Write the file atomically and return its path.

        Args:
            path: Where to; parent folders are made.
            layout: How tensors are named: ``comfy`` (``diffusion_model.``, lora_down/up and alpha), ``diffusers``
                (``diffusion_model.``, lora_A/B, alpha folded in) or ``reference`` (``lora_unet_``); None keeps the
                file's own, which for a freshly trained one is ``comfy``.
            dtype: Precision of the matrices; ``as is`` changes nothing.

        Raises:
            ConfigError: The name does not end in ``.safetensors``, or the file cannot be written.

        Absolute paths in the metadata are cut to their last part; the hashes ``sshs_model_hash`` and
        ``sshs_legacy_hash`` are computed anew.
        """
        if Path(path).suffix != ".safetensors":
            raise ConfigError("save", [Issue(shown(path), "a LoRA is a .safetensors file", "give it that ending")])
        tensors = self.tensors(layout, dtype)
        with atomic.replacing(path) as temporary:
            fingerprint.write(temporary, tensors, fingerprint.publishable(self.metadata))
        return Path(path)

    def _check_named(self, joint: str, layout: str) -> None:
        nameless = [name for name in self.modules if "." not in name]
        if joint == "." and nameless:
            hint = "bind() it to the model's module names first, or save with layout='reference'"
            raise WeightsError(
                "cannot save the LoRA", [Issue(nameless[0], f"layout {layout!r} needs dotted module names", hint)]
            )

    def __repr__(self) -> str:
        return f"<LoRAFile of {len(self.modules)} modules, rank {self.rank}, layout {self.layout!r}>"

    def _repr_html_(self) -> str:
        size = sum(w.down.numel() + w.up.numel() for w in self.modules.values())
        strengths = sorted({round(w.strength, 6) for w in self.modules.values()})
        shown_metadata = [(k, v if len(v) <= 80 else v[:77] + "...") for k, v in sorted(self.metadata.items())]
        facts: list[tuple[str, object]] = [
            ("modules", len(self.modules)),
            ("rank", self.rank),
            ("alpha / rank", ", ".join(map(str, strengths))),
            ("parameters", f"{size:,}"),
            ("layout", self.layout),
        ]
        return card("LoRAFile", [*facts, *shown_metadata])


def _identities(names: tuple[str, ...], keymap: KeyMap | None) -> dict[str, str]:
    """Return original names by flat original name, and by flat library name where the two correspond one to one."""
    table = {keys.flat(name): name for name in names}
    for name in names if keymap is not None else ():
        parts = keymap.to_library(name) if keymap is not None else ()
        if len(parts) == 1:
            table.setdefault(keys.flat(parts[0].name), name)
    return table


def _unknown(strangers: list[str], table: Mapping[str, str], total: int, limit: int = 8) -> Iterable[Issue]:
    for name in strangers[:limit]:
        near = did_you_mean(name, table.values())
        yield Issue(name, f"the model has no such module{near}")
    if len(strangers) > limit:
        hint = "is it a LoRA for another architecture or variant?"
        yield Issue("", f"{len(strangers)} of the file's {total} modules are unknown", hint)
