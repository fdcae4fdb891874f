from __future__ import annotations

import pytest

from musubi.cache.building.dtypes import encoder_dtype
from musubi.core.errors import ConfigError


def test_what_is_asked_for_comes_before_what_was_and_that_before_what_suits() -> None:
    assert encoder_dtype("float16", "bfloat16", device="cpu") == "float16"
    assert encoder_dtype(None, "bfloat16", device="cpu") == "bfloat16"
    assert encoder_dtype(None, "complex64", device="cpu") == "float32"
    assert encoder_dtype(None, None, device="cuda") == "bfloat16"


def test_any_other_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="dtype"):
        encoder_dtype("fp16", None, device="cpu")  # type: ignore[arg-type]
