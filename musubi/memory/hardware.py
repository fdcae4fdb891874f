"""What a plan knows of a device: its memory, how fast it computes, and how fast weights reach it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import did_you_mean

if TYPE_CHECKING:
    import torch

GIB = 1 << 30
EFFICIENCY = 0.6
"""The share of the peak that large matrix products and attention reach together.

With it, the 10.8 s calculated for Qwen-Image at 1328 x 1328 on an RTX 3090 meet the 11 s that were published.
"""

_GEN4, _GEN5 = 25e9, 50e9
"""Bytes a second that 16 lanes of PCIe 4 and 5 carry in large copies from pinned memory; they are 31.5e9 and 63e9 by
their name."""

_SIZE = re.compile(r"\d+gb")
_VARIANTS = frozenset(("ti", "super", "laptop", "mobile", "d", "max", "q"))
"""Words after which a name means another card."""

_HALF = 0.5
"""Of 16 lanes, what a card with 8 of them has."""


@attrs.frozen(kw_only=True)
class Hardware:
    """A device to plan for; the peaks are those of dense products with sums in float32.

    Args:
        name: What it is called.
        memory: Bytes of its memory that a run may use.
        tflops: Peak in bfloat16, in 1e12 operations a second; None if it is not known, then no times are told.
        eight_bit: Peak in int8 and float8; None where it is that of bfloat16, as without such units.
        bandwidth: Bytes a second from pinned host memory.

    Example:
        >>> from musubi import Hardware
        >>> Hardware.named("rtx 4090").tflops
        165.2
    """

    name: str
    memory: int
    tflops: float | None = None
    eight_bit: float | None = None
    bandwidth: float = _GEN4

    @classmethod
    def named(cls, name: str) -> Hardware:
        """Return a known card; case, blanks and the maker's name do not matter.

        Raises:
            ConfigError: It is not in the table; the nearest ones are named.
        """
        found = _known(name)
        if found is None:
            names = [card.name for card in CARDS]
            hint = "known: " + ", ".join(names) + "; or give Hardware(name=..., memory=..., tflops=...)"
            message = f"no card is known as {name!r}{did_you_mean(_plain(name), map(_plain, names))}"
            raise ConfigError("unknown hardware", [Issue("hardware", message, hint)])
        return found

    @classmethod
    def here(cls, device: torch.device) -> Hardware | None:
        """Return a CUDA device of this machine with its free memory; None for other devices, or where there is none."""
        import torch

        if device.type != "cuda" or not torch.cuda.is_available():
            return None
        name = torch.cuda.get_device_name(device)
        free, _ = torch.cuda.mem_get_info(device)
        known = _known(name)
        return attrs.evolve(known, memory=free) if known is not None else cls(name=name, memory=free)

    def seconds(self, flops: float, eight_bit: float = 0.0) -> float | None:
        """Return how long operations in bfloat16 and in 8 bits take at ``EFFICIENCY`` of the peak."""
        if self.tflops is None:
            return None
        return (flops / self.tflops + eight_bit / (self.eight_bit or self.tflops)) / (EFFICIENCY * 1e12)


CARDS: tuple[Hardware, ...] = (
    Hardware(name="RTX 3060 12 GB", memory=12 * GIB, tflops=25.5, eight_bit=102, bandwidth=_GEN4),
    Hardware(name="RTX 3090", memory=24 * GIB, tflops=71, eight_bit=284, bandwidth=_GEN4),
    Hardware(name="RTX 4060 Ti 16 GB", memory=16 * GIB, tflops=44, eight_bit=176, bandwidth=_GEN4 * _HALF),
    Hardware(name="RTX 4070", memory=12 * GIB, tflops=58.3, eight_bit=233, bandwidth=_GEN4),
    Hardware(name="RTX 4080", memory=16 * GIB, tflops=97.5, eight_bit=390, bandwidth=_GEN4),
    Hardware(name="RTX 4090", memory=24 * GIB, tflops=165.2, eight_bit=660.6, bandwidth=_GEN4),
    Hardware(name="RTX 5080", memory=16 * GIB, tflops=112.6, eight_bit=450.2, bandwidth=_GEN5),
    Hardware(name="RTX 5090", memory=32 * GIB, tflops=209.5, eight_bit=838, bandwidth=_GEN5),
    Hardware(name="A100 40 GB", memory=40 * GIB, tflops=312, eight_bit=624, bandwidth=_GEN4),
    Hardware(name="A100 80 GB", memory=80 * GIB, tflops=312, eight_bit=624, bandwidth=_GEN4),
    Hardware(name="L40S", memory=48 * GIB, tflops=362, eight_bit=733, bandwidth=_GEN4),
    Hardware(name="H100", memory=80 * GIB, tflops=989, eight_bit=1979, bandwidth=_GEN5),
    Hardware(name="H200", memory=141 * 10**9, tflops=989, eight_bit=1979, bandwidth=_GEN5),
    Hardware(name="RTX PRO 6000", memory=96 * GIB, tflops=503.8, eight_bit=1007.6, bandwidth=_GEN5),
)
"""Dense peaks by NVIDIA's own papers: GA102 v2, appendix (RTX 30); Ada v2.01, appendix (RTX 40; others of a generation
by their tensor cores and boost clock); RTX Blackwell v1.1, appendix (RTX 50, RTX PRO 6000); and the data sheets of
A100, L40S, H100 SXM and H200 SXM, whose figures with sparsity are halved. 8-bit peaks are those of int8; a GeForce card
does float8 with sums in float32 at half of that."""


def as_hardware(given: Hardware | str | None, device: torch.device) -> Hardware | None:
    """Return what was given, by name or as it is, else the device of this machine, if there is one."""
    if isinstance(given, str):
        return Hardware.named(given)
    return given if given is not None else Hardware.here(device)


def _known(name: str) -> Hardware | None:
    """Return the card whose words a name has, of several sizes the smallest unless the name tells which."""
    words = set(_plain(name).split())
    sizes = {word for word in words if _SIZE.fullmatch(word)}
    fitting = [card for card in CARDS if _model(card.name) <= words and not (words & _VARIANTS) - _model(card.name)]
    sized = [card for card in fitting if sizes & set(_plain(card.name).split())]
    unsized = [card for card in fitting if not sizes or set(_plain(card.name).split()) == _model(card.name)]
    return min(sized or unsized, key=lambda card: card.memory, default=None)


def _model(name: str) -> set[str]:
    return {word for word in _plain(name).split() if not _SIZE.fullmatch(word)}


def _plain(name: str) -> str:
    """Return lower-case words: ``NVIDIA H100-SXM5-80GB`` is ``h100 sxm5 80gb``, ``RTX4090`` is ``rtx 4090``."""
    spaced = re.sub(r"[-_/]", " ", name.lower())
    spaced = re.sub(r"(\d)\s+(gb|gib)\b", r"\1gb", spaced.replace("gib", "gb"))
    spaced = re.sub(r"\b(rtx)(?=\d)", r"\1 ", re.sub(r"(?<=\d)(ti)\b", r" \1", spaced))
    return " ".join(word for word in spaced.split() if word not in {"nvidia", "geforce", "graphics", "gpu"})
