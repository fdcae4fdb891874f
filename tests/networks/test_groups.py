from __future__ import annotations

import pytest
import torch

from musubi.core.errors import WeightsError
from musubi.networks.groups import groups_of, linears_of
from musubi.networks.lora import LoRA
from tests.networks.small import KEYS, LAYOUT, NAMES, Small, make_set


def test_linears_are_gathered_by_original_module() -> None:
    groups = groups_of(Small(), KEYS)

    assert tuple(groups) == ("patch", *NAMES, "head")
    assert groups["blocks.0.attn.qk"].members == ("blocks.0.to_q", "blocks.0.to_k")
    assert groups["blocks.0.attn.qk"].rows == (8, 11)


def test_the_number_of_trained_weights_is_known_from_a_model_without_weights() -> None:
    with torch.device("meta"):
        empty = Small()

    count = LoRA(rank=3).trainable(empty, keys=KEYS, layout=LAYOUT)

    assert count == sum(p.numel() for p in make_set(Small()).parameters())


def test_a_missing_linear_is_named() -> None:
    with pytest.raises(WeightsError, match=r"blocks\.0\.to_v: is no Linear"):
        linears_of(Small(), ("blocks.0.to_q", "blocks.0.to_v"))
