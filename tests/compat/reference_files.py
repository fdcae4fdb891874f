"""Cache files as musubi-tuner v0.2.13 writes them: its names, keys and metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

Shape = Sequence[int]


def tensor(*shape: int, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> Tensor:
    """Return numbers that differ with the shape and the seed."""
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator).to(dtype)


def picture(
    folder: Path,
    stem: str,
    *,
    size: tuple[int, int] = (640, 480),
    bucket: tuple[int, int] = (64, 48),
    arch: str = "wan",
    full: str | None = None,
    extra: Mapping[str, Tensor] | None = None,
    seed: int = 0,
) -> Path:
    """Write the latents of a picture."""
    height, width = bucket[1] // 8, bucket[0] // 8
    tensors = {f"latents_1x{height}x{width}_bfloat16": tensor(16, 1, height, width, seed=seed), **(extra or {})}
    path = folder / f"{stem}_{size[0]:04d}x{size[1]:04d}_{arch}.safetensors"
    return saved(path, tensors, architecture=full or arch, width=size[0], height=size[1])


def window(
    folder: Path,
    stem: str,
    *,
    start: int = 0,
    count: int = 5,
    bucket: tuple[int, int] = (64, 48),
    arch: str = "wan",
    full: str | None = None,
    section: int | None = None,
    frames: int | None = None,
    dtype: torch.dtype = torch.bfloat16,
    extra: Mapping[str, Tensor] | None = None,
    seed: int = 0,
) -> Path:
    """Write the latents of a window of a clip, or of one section of it."""
    shape = (frames or (count - 1) // 4 + 1, bucket[1] // 8, bucket[0] // 8)
    key = f"latents_{'x'.join(map(str, shape))}_{str(dtype).removeprefix('torch.')}"
    tensors = {key: tensor(16, *shape, dtype=dtype, seed=seed), **(extra or {})}
    part = f"-{section:04d}" if section is not None else ""
    name = f"{stem}_{start:05d}-{count:03d}{part}_{bucket[0]:04d}x{bucket[1]:04d}_{arch}.safetensors"
    facts = {"width": bucket[0], "height": bucket[1], "frame_count": count}
    return saved(folder / name, tensors, architecture=full or arch, **facts)


def text(
    folder: Path,
    stem: str,
    caption: str = "a caption",
    *,
    arch: str = "wan",
    full: str | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write the text of a media file."""
    content = tensors or {"varlen_t5_bfloat16": tensor(3 + len(caption) % 5, 8)}
    return saved(folder / f"{stem}_{arch}_te.safetensors", content, architecture=full or arch, caption1=caption)


def disowned(folder: Path) -> Path:
    """Turn a cache that was built into one of the reference: no manifest, no fingerprint."""
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            path.unlink()
            continue
        with safe_open(path, framework="pt") as file:
            facts = {name: value for name, value in file.metadata().items() if not name.startswith("musubi.")}
        save_file(load_file(path), path, metadata=facts)
    return folder


def saved(path: Path, tensors: Mapping[str, Tensor], *, architecture: str, **facts: Any) -> Path:
    """Write a file with the metadata that all of them have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {"architecture": architecture, "format_version": "1.0.1", **{k: str(v) for k, v in facts.items()}}
    save_file(dict(tensors), path, metadata=told)
    return path
