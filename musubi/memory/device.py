"""Where models compute and in what: by name, or the best there is."""

from __future__ import annotations

import torch

from musubi.core.errors import ConfigError, Issue

_HINT = "leave it out to take the best there is, or give 'cpu', 'cuda', 'cuda:1', 'mps'"


def named_device(name: str) -> torch.device:
    """Return the device of a name, whether this machine has it or not; raises ``ConfigError`` if there is none."""
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ConfigError("no such device", [Issue("device", f"{name!r} names no kind of device", _HINT)]) from error


def usable_device(name: str) -> torch.device:
    """Return the device of a name, once a tensor could be put there.

    Raises:
        ConfigError: This machine, or this build of torch, does not have it.
    """
    device = named_device(name)
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        message = f"{name!r} cannot be used: {reason}"
        raise ConfigError("no such device", [Issue("device", message, _HINT)]) from error
    return device


def pick_device(name: str | None) -> torch.device:
    """Return the device of this name, whether it is there or not, or the best there is; raises ``ConfigError``."""
    if name is not None:
        return named_device(name)
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pick_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """Return the dtype of this name, or bfloat16 on an accelerator and float32 on a CPU."""
    usual = "float32" if device.type == "cpu" else "bfloat16"
    dtype: torch.dtype = getattr(torch, name or usual)
    return dtype
