"""Which LoRA files a pipeline uses, how strongly, and whether they are attached or merged."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import as_path, field
from musubi.core.spec import Spec

if TYPE_CHECKING:
    from musubi.networks.file import LoRAFile


def _number(value: object) -> str | None:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return None if good else f"must be a number, got {value!r}"


@attrs.frozen(kw_only=True)
class LoRAUse(Spec):
    """A LoRA at a strength: from a file, or one that lies in memory (``loaded``), as ``result.lora`` does.

    With ``merge`` its deltas are added to the weights while they are loaded: as fast as the bare model, but fixed.
    """

    path: Path | None = attrs.field(default=None, converter=attrs.converters.optional(as_path))
    loaded: object = attrs.field(default=None, repr=False)
    weight: float = field(default=1.0, check=_number)
    merge: bool = False

    @classmethod
    def of(cls, lora: LoRAFile | Path | str, *, weight: float, merge: bool) -> LoRAUse:
        """Return the use of a file by its path, or of a LoRA in memory."""
        if isinstance(lora, Path | str):
            return cls(path=Path(lora), weight=weight, merge=merge)
        return cls(loaded=lora, weight=weight, merge=merge)

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
