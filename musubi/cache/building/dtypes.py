"""The precision that encoders run in."""

from __future__ import annotations

from typing import Literal, cast, get_args

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import one_of

EncoderDtype = Literal["float32", "bfloat16", "float16"]


def encoder_dtype(asked: EncoderDtype | None, before: str | None, *, device: str) -> EncoderDtype:
    """Return what was asked for, else what an earlier build ran in, else what suits a type of device.

    Raises:
        ConfigError: What was asked for is no such precision.
    """
    known = get_args(EncoderDtype)
    if asked is not None:
        wrong = one_of(*known)(asked)
        if wrong is not None:
            raise ConfigError("Cache.build", [Issue("dtype", wrong)])
        return asked
    if before in known:
        return cast(EncoderDtype, before)
    return "bfloat16" if device == "cuda" else "float32"
