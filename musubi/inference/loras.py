"""Which LoRA files a pipeline uses, how strongly, and whether they are attached or merged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import as_path, did_you_mean, field
from musubi.core.spec import Spec

if TYPE_CHECKING:
    from musubi.architecture import Expert
    from musubi.networks.file import LoRAFile

EXPERT = "musubi.expert"
"""Where a file's metadata names the expert that it was trained on."""


def _number(value: object) -> str | None:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return None if good else f"must be a number, got {value!r}"


@attrs.frozen(kw_only=True)
class LoRAUse(Spec):
    """A LoRA at a strength: from a file, or one that lies in memory (``loaded``), as ``result.lora`` does.

    With ``merge`` its deltas are added to the weights while they are loaded: as fast as the bare model, but fixed.
    ``expert`` names the one expert it is for, where a model has several; None leaves that to the file, and a file that
    says nothing is for all of them.
    """

    path: Path | None = attrs.field(default=None, converter=attrs.converters.optional(as_path))
    loaded: object = attrs.field(default=None, repr=False)
    weight: float = field(default=1.0, check=_number)
    merge: bool = False
    expert: str | None = None

    @classmethod
    def of(cls, lora: LoRAFile | Path | str, *, weight: float, merge: bool, expert: str | None = None) -> LoRAUse:
        """Return the use of a file by its path, or of a LoRA in memory."""
        if isinstance(lora, Path | str):
            return cls(path=Path(lora), weight=weight, merge=merge, expert=expert)
        return cls(loaded=lora, weight=weight, merge=merge, expert=expert)

    def problems(self) -> Iterable[Issue]:
        """Yield what is neither a file nor a LoRA."""
        if self.loaded is None:
            return
        from musubi.networks.file import LoRAFile

        if not isinstance(self.loaded, LoRAFile):
            yield Issue("loaded", f"must be a path or a LoRAFile, got {self.loaded!r}")

    def file(self) -> LoRAFile:
        """Read the file, or return the LoRA in memory.

        Raises:
            WeightsError: The file cannot be read, or is no LoRA.
            ConfigError: There is neither a path nor a LoRA.
        """
        from musubi.networks.file import LoRAFile

        if isinstance(self.loaded, LoRAFile):
            return self.loaded
        if self.path is None:
            raise ConfigError("LoRA", [Issue("path", "is missing", "give a .safetensors file")])
        return LoRAFile.load(self.path)

    def concerns(self, expert: Expert, file: LoRAFile, experts: Sequence[Expert]) -> bool:
        """Tell whether a LoRA, read from ``file``, is used on one of a model's ``experts``."""
        told = self.expert or file.metadata.get(EXPERT)
        return told == expert.name or told not in {one.name for one in experts}

    def expert_issues(self, experts: Sequence[Expert]) -> Iterable[Issue]:
        """Yield that a model has no expert of the name that was given."""
        names = [expert.name for expert in experts]
        if self.expert is not None and self.expert not in names:
            hint = f"experts: {', '.join(names)}" if len(names) > 1 else "leave it out: there is one model"
            yield Issue("expert", f"there is no expert {self.expert!r}{did_you_mean(self.expert, names)}", hint)

    @property
    def name(self) -> str:
        """What results tell about it: the file's name without folders, and the strength."""
        return f"{self.path.name if self.path else 'in memory'}:{self.weight:g}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values.

        Raises:
            ConfigError: The LoRA is in memory only.
        """
        if self.loaded is not None:
            hint = "save it, and give its path"
            raise ConfigError(
                "LoRA", [Issue("loaded", "a LoRA in memory cannot be written into a configuration", hint)]
            )
        return super().to_dict()
