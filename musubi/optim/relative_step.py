"""Adafactor whose own rate can differ between groups of parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from transformers.optimization import Adafactor


class RelativeAdafactor(Adafactor):
    """``transformers.Adafactor`` with a relative step that a group's ``lr`` multiplies, 1 for the published one."""

    @staticmethod
    def _get_lr(param_group: Mapping[str, Any], param_state: Mapping[str, Any]) -> Any:
        return relative_rate(param_group, param_state)


def relative_rate(group: Mapping[str, Any], state: Mapping[str, Any]) -> Any:
    """Return the rate of a parameter at its last step, number or scalar tensor (Shazeer & Stern 2018, section 8)."""
    step = state["step"]
    highest = 1e-6 * step if group["warmup_init"] else 1e-2
    rate = group["lr"] * min(highest, 1.0 / math.sqrt(step))
    return rate * max(group["eps"][1], state["RMS"]) if group["scale_parameter"] else rate
