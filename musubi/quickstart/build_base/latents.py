"""Encode many captioned pictures and clips once, so that the transformer trains on latents alone."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import attrs
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from musubi.quickstart import shapes
from musubi.quickstart.build_base.group import Group
from musubi.quickstart.build_base.options import Options
from musubi.quickstart.build_base.pictures import random_scene, to_tensor
from musubi.quickstart.build_base.vae import encode, load_vae, quick_layers
from musubi.quickstart.shapes import Jitter

logger = logging.getLogger(__name__)

PICTURES = 12_000
CLIPS = 2_000
CHUNK = 16


@attrs.frozen(kw_only=True, eq=False)
class Latents:
    """Hold normalised latents and their captions, and the numbers that normalised them, one for each channel."""

    pictures: Tensor
    clips: Tensor
    picture_captions: list[str]
    clip_captions: list[str]
    mean: Tensor
    std: Tensor


def encode_latents(options: Options, group: Group) -> None:
    """Write this process's share of the latents; nothing happens where the file exists."""
    path = _shard(options.out, group.rank)
    if path.exists():
        return
    vae = load_vae(options.out / "vae_clips.pt")
    nn.Module.to(vae, options.device)
    random = np.random.default_rng([options.seed, 1, group.rank])
    tensors, captions = {}, {}
    with quick_layers(), torch.no_grad():
        for kind, count, moving in (("pictures", PICTURES, False), ("clips", CLIPS, True)):
            chunks, texts = [], []
            for pixels, text in _captioned(random, count // group.size, moving=moving):
                chunks.append(encode(vae, pixels.to(options.device))[0].cpu())
                texts += text
            tensors[kind], captions[kind] = torch.cat(chunks), json.dumps(texts)
            logger.info("process %d encoded %d %s", group.rank, len(texts), kind)
    save_file(tensors, path.with_suffix(".partial"), metadata=captions)
    path.with_suffix(".partial").replace(path)


def load_latents(folder: Path) -> Latents:
    """Read all shards, in the order of the processes that wrote them, and normalise them by their own mean and std."""
    tensors: dict[str, list[Tensor]] = {"pictures": [], "clips": []}
    captions: dict[str, list[str]] = {"pictures": [], "clips": []}
    for path in sorted(folder.glob("latents_*.safetensors")):
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            for kind, chunks in tensors.items():
                chunks.append(file.get_tensor(kind))
                captions[kind] += json.loads(metadata[kind])
    pictures, clips = torch.cat(tensors["pictures"]), torch.cat(tensors["clips"])
    mean, std = _statistics(pictures, clips)
    return Latents(
        pictures=normalised(pictures, mean, std),
        clips=normalised(clips, mean, std),
        picture_captions=captions["pictures"],
        clip_captions=captions["clips"],
        mean=mean,
        std=std,
    )


def normalised(latents_BCFHW: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Bring latents to zero mean and unit variance in each channel."""
    return (latents_BCFHW - mean.view(1, -1, 1, 1, 1)) * (1 / std).view(1, -1, 1, 1, 1)


def denormalised(latents_BCFHW: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Undo `normalised`."""
    return latents_BCFHW / (1 / std).view(1, -1, 1, 1, 1) + mean.view(1, -1, 1, 1, 1)


def _statistics(pictures: Tensor, clips: Tensor) -> tuple[Tensor, Tensor]:
    frames = torch.cat([pictures, clips[:, :, :1], clips[:, :, 1:2], clips[:, :, 2:]]).transpose(0, 1).flatten(1)
    return frames.mean(dim=1), frames.std(dim=1)


def _captioned(random: np.random.Generator, count: int, *, moving: bool) -> Iterator[tuple[Tensor, list[str]]]:
    for start in range(0, count, CHUNK):
        scenes = [random_scene(random, moving=moving) for _ in range(min(CHUNK, count - start))]
        drawn = [
            shapes.clip(scene, Jitter.draw(random)) if moving else shapes.picture(scene, Jitter.draw(random))[None]
            for scene in scenes
        ]
        yield to_tensor(np.stack(drawn)), [scene.caption for scene in scenes]


def _shard(folder: Path, rank: int) -> Path:
    return folder / f"latents_{rank}.safetensors"
