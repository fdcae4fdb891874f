from __future__ import annotations

import pytest
from torch import nn

from musubi.weights.checked import checked


def test_a_model_of_the_class_is_returned() -> None:
    layer = nn.Linear(2, 2)

    assert checked(layer, nn.Linear) is layer


def test_another_is_refused_by_both_names() -> None:
    with pytest.raises(TypeError, match="a Linear is needed, got a GELU"):
        checked(nn.GELU(), nn.Linear)
