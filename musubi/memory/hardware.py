"""What a plan knows of a device: its memory, how fast it computes, and how fast weights reach it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import count, did_you_mean, optional, positive

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
        int8: Peak of int8 products; None without units for them, or if it is not known.
        fp8: The same of float8.
        bandwidth: Bytes a second from pinned host memory.

    Example:
        >>> from musubi import Hardware
        >>> Hardware.named("rtx 4090").tflops
        165.2
    """

    name: str
    memory: int
    tflops: float | None = None
    int8: float | None = None
    fp8: float | None = None
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

    def __attrs_post_init__(self) -> None:
        """Refuse what is no number above 0."""
        checks = {"memory": count(), "tflops": optional(positive), "int8": optional(positive)}
        checks |= {"fp8": optional(positive), "bandwidth": positive}
        found = {name: check(getattr(self, name)) for name, check in checks.items()}
        issues = [Issue(name, problem) for name, problem in found.items() if problem is not None]
        if issues:
            raise ConfigError(type(self).__name__, issues)

    def multiplies(self, compute: Literal["int8", "fp8"] | None) -> bool:
        """Tell whether there are units for products in a type; of a card of unknown speed nobody knows otherwise."""
        return compute is None or self.tflops is None or getattr(self, compute) is not None

    def seconds(
        self, flops: float, eight_bit: float = 0.0, *, compute: Literal["int8", "fp8"] = "int8"
    ) -> float | None:
        """Return how long operations in bfloat16 and in 8 bits take at ``EFFICIENCY`` of the peak."""
        if self.tflops is None:
            return None
        peak = (self.fp8 if compute == "fp8" else self.int8) or self.tflops
        return (flops / self.tflops + eight_bit / peak) / (EFFICIENCY * 1e12)


CARDS: tuple[Hardware, ...] = (
    Hardware(name="RTX 3060 12 GB", memory=12 * GIB, tflops=25.5, int8=102, bandwidth=_GEN4),
    Hardware(name="RTX 3090", memory=24 * GIB, tflops=71, int8=284, bandwidth=_GEN4),
    Hardware(name="RTX 4060 Ti 16 GB", memory=16 * GIB, tflops=44, int8=176, fp8=88, bandwidth=_GEN4 * _HALF),
    Hardware(name="RTX 4070", memory=12 * GIB, tflops=58.3, int8=233, fp8=116.6, bandwidth=_GEN4),
    Hardware(name="RTX 4080", memory=16 * GIB, tflops=97.5, int8=390, fp8=194.9, bandwidth=_GEN4),
    Hardware(name="RTX 4090", memory=24 * GIB, tflops=165.2, int8=660.6, fp8=330.3, bandwidth=_GEN4),
    Hardware(name="RTX 5080", memory=16 * GIB, tflops=112.6, int8=450.2, fp8=225.1, bandwidth=_GEN5),
    Hardware(name="RTX 5090", memory=32 * GIB, tflops=209.5, int8=838, fp8=419, bandwidth=_GEN5),
    Hardware(name="A100 40 GB", memory=40 * GIB, tflops=312, int8=624, bandwidth=_GEN4),
    Hardware(name="A100 80 GB", memory=80 * GIB, tflops=312, int8=624, bandwidth=_GEN4),
    Hardware(name="L40S", memory=48 * GIB, tflops=362, int8=733, fp8=733, bandwidth=_GEN4),
    Hardware(name="H100", memory=80 * GIB, tflops=989, int8=1979, fp8=1979, bandwidth=_GEN5),
    Hardware(name="H200", memory=141 * 10**9, tflops=989, int8=1979, fp8=1979, bandwidth=_GEN5),
    Hardware(name="RTX PRO 6000", memory=96 * GIB, tflops=503.8, int8=1007.6, fp8=1007.6, bandwidth=_GEN5),
)
"""Dense peaks by NVIDIA's own papers: GA102 v2, appendix (RTX 30); Ada v2.01, appendix (RTX 40; others of a generation
by their tensor cores and boost clock); RTX Blackwell v1.1, appendix (RTX 50, RTX PRO 6000); and the data sheets of
A100, L40S, H100 SXM and H200 SXM, whose figures with sparsity are halved. A GeForce card does float8 with sums in
float32 at half the speed of int8."""


def as_hardware(given: object, device: torch.device) -> Hardware | None:
    """Return what was given, a ``Hardware`` or its name, else the device of this machine, if there is one.

    Raises:
        ConfigError: It is neither, or no card is known by that name.
    """
    if isinstance(given, str):
        return Hardware.named(given)
    if given is None:
        return Hardware.here(device)
    if not isinstance(given, Hardware):
        hint = 'a card by its name, "RTX 4090", or Hardware(name=..., memory=...)'
        raise ConfigError("plan", [Issue("hardware", f"must be a name or a Hardware, got {given!r}", hint)])
    return given


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
