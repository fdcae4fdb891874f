"""What PEFT keeps of an adapter's strength: a JSON entry of the file's metadata instead of tensors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Self

import attrs

PEFT_METADATA = "lora_adapter_metadata"
"""The metadata entry in which diffusers keeps it; it is taken over into the weights and dropped."""

_OWNER = "transformer."


@attrs.frozen(kw_only=True)
class PeftSettings:
    """The alpha of all modules, of those that patterns name, and whether the rank counts by its root (rsLoRA)."""

    alpha: float | None = None
    patterns: Mapping[str, float] = attrs.field(factory=dict)
    rank_stabilised: bool = False

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> Self:
        """Read a file's metadata; without such an entry nothing is known."""
        try:
            found: Any = json.loads(metadata.get(PEFT_METADATA, "{}"))
        except json.JSONDecodeError:
            return cls()
        if not isinstance(found, dict):
            return cls()
        values = {str(key).removeprefix(_OWNER): value for key, value in found.items()}
        alpha, patterns = values.get("lora_alpha"), values.get("alpha_pattern")
        return cls(
            alpha=_number(alpha),
            patterns={k: n for k, v in patterns.items() if (n := _number(v)) is not None}
            if isinstance(patterns, dict)
            else {},
            rank_stabilised=values.get("use_rslora") is True,
        )

    def alpha_of(self, module: str, rank: int) -> float | None:
        """Return the alpha whose ``alpha / rank`` is the module's strength; None if the entry says nothing.

        A pattern names a module, or the end of its name. Source: ``peft.utils.get_pattern_key``, which takes
        patterns for regular expressions; here they are words, since a file could bring one that never ends.
        """
        words = ((pattern.strip("^$").replace("\\.", "."), value) for pattern, value in self.patterns.items())
        named = (value for word, value in words if module == word or module.endswith(f".{word}"))
        alpha = next(named, self.alpha)
        if alpha is None or not self.rank_stabilised:
            return alpha
        return alpha * math.sqrt(rank)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
