"""A whole architecture in one screen or two: the pattern to copy for a new one, and the model small tests train.

A real architecture splits this file into ``spec.py`` (no torch), ``keys.py``, ``codec.py`` and ``denoiser.py``.
Shapes: B item, C channel, F frame, H W height and width, T token, D width of the network.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

import attrs
import torch
from einops import rearrange, reduce
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from musubi.architecture import (
    Architecture,
    CaptionLengths,
    Codec,
    Denoiser,
    Expert,
    Generation,
    Geometry,
    Layout,
    Models,
    Prepare,
    Stage,
    StoredWeight,
    WeightHook,
)
from musubi.batch import RAGGED, Batch, Entry, Sample
from musubi.core.fields import count, field
from musubi.core.refs import WeightsRef
from musubi.keymap import KeyMap, Rename
from musubi.weights.checkpoint import Checkpoint, open_checkpoint
from musubi.weights.load import load_into
from musubi.weights.stored import stored_weights

if TYPE_CHECKING:
    from musubi.noise.samplers import Sampler
    from musubi.noise.timesteps import TimestepSampler

_WORDS, _TEXT = 256, 16
_LONGEST = 64
"""Words of a caption that are read."""


@attrs.frozen(kw_only=True)
class Toy(Architecture):
    """Describe a network of a few thousand weights, drawn from ``seed``; ``dim`` is its width, ``depth`` its blocks."""

    kind: ClassVar[str] = "toy"
    name: ClassVar[str] = "toy"
    cache_suffix: ClassVar[str] = "toy"

    dim: int = field(default=32, check=count(8))
    depth: int = field(default=2, check=count(1))
    seed: int = field(default=0, check=count(0))

    @property
    def geometry(self) -> Geometry:
        return Geometry(multiple=16, stride=8, frame_step=4, channels=12, patch=(1, 2, 2), fps=8.0)

    @property
    def layout(self) -> Layout:
        linears = (r"blocks\.\d+\.(attn\.(qkv|out)|mlp)",)
        return Layout(blocks=("blocks",), count=self.depth, adapters=linears, quantise=linears)

    @property
    def keys(self) -> KeyMap:
        attention = "blocks.{}.attn"
        return KeyMap(
            (
                Rename(f"{attention}.qkv", (f"{attention}.to_q", f"{attention}.to_k", f"{attention}.to_v")),
                Rename("blocks.{}.mlp", "blocks.{}.feed_forward"),
            )
        )

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (
            Stage(name="latents", components=("vae",), reads=("pixels",)),
            Stage(name="text", components=("text",), reads=("caption",)),
        )

    @property
    def timesteps(self) -> TimestepSampler:
        from musubi.noise.timesteps import Uniform

        return Uniform()

    @property
    def sampler(self) -> Sampler:
        from musubi.noise.samplers import Euler

        return Euler()

    @property
    def generation(self) -> Generation:
        return Generation(size=(64, 64), frames=1, steps=4, guidance=2.0, fps=8.0)

    def default_weights(self) -> Mapping[str, WeightsRef]:
        """Return names only: published nowhere; what ``with_weights`` does not name is drawn from ``seed``."""
        return {component: WeightsRef(f"toy-{component}") for component in ("dit", "vae", "text")}

    def codec(self) -> ToyCodec:
        return ToyCodec(self)

    def denoiser(self) -> ToyDenoiser:
        return ToyDenoiser(self)


class ToyVAE(nn.Module):
    """Means of 4x4 pixels of every fourth frame, mixed by a rotation: decoding what was decoded changes nothing."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        rotation, _ = torch.linalg.qr(torch.randn(12, 12, generator=generator))
        self.rotation = nn.Parameter(rotation)

    def encode(self, pixels_BFHWC: Tensor) -> Tensor:
        """Return latents (B, C, F, H, W) of pixels in [-1, 1]."""
        cells = reduce(pixels_BFHWC[:, ::4], "b f (h p s) (w q t) c -> b f h w (p q c)", "mean", p=2, q=2, s=4, t=4)
        return rearrange(cells @ self.rotation, "b f h w c -> b c f h w")

    def decode(self, latents_BCFHW: Tensor) -> Tensor:
        """Return pixels (B, F, H, W, 3) in about [-1, 1]."""
        cells = rearrange(latents_BCFHW, "b c f h w -> b f h w c") @ self.rotation.T
        pixels = rearrange(cells, "b f h w (p q c) -> b f (h p) (w q) c", p=2, q=2)
        pixels = pixels.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
        return pixels.repeat_interleave(4, dim=1)[:, 3:]


@attrs.frozen
class ToyCodec(Codec):
    """Encode pictures by ``ToyVAE`` and captions by one vector for each word."""

    toy: Toy

    def load(
        self,
        component: str,
        *,
        device: torch.device,
        dtype: torch.dtype,
        prepare: Prepare | None = None,
        on_weight: WeightHook | None = None,
    ) -> nn.Module:
        generator = Generator().manual_seed(self.toy.seed)
        model: nn.Module
        if component == "vae":
            model = ToyVAE(generator)
        else:
            model = nn.Embedding(_WORDS, _TEXT, _weight=torch.randn(_WORDS, _TEXT, generator=generator))
        return model.requires_grad_(False).eval().to(device=device, dtype=dtype)

    @torch.no_grad()
    def encode(self, stage: Stage, models: Models, samples: Sequence[Sample]) -> list[Entry]:
        encode = self._encode_pixels if stage.name == "latents" else self._encode_captions
        return [Entry(name=s.name, tensors=t) for s, t in zip(samples, encode(models, samples), strict=True)]

    @torch.no_grad()
    def decode(self, models: Models, latents: Tensor) -> Tensor:
        vae = cast(ToyVAE, models["vae"])
        return (vae.decode(latents.to(vae.rotation.dtype)).float() / 2 + 0.5).clamp(0, 1)

    def identity(self, component: str) -> str:
        return f"toy-{component}-{self.toy.seed}"

    def caption_lengths(self, captions: Sequence[str]) -> CaptionLengths:
        return CaptionLengths(tokens=tuple(len(caption.split()) for caption in captions), limit=_LONGEST)

    def _encode_pixels(self, models: Models, samples: Sequence[Sample]) -> list[dict[str, Tensor]]:
        vae = cast(ToyVAE, models["vae"])
        pixels = torch.stack([s.pixels for s in samples if s.pixels is not None])
        latents = vae.encode(pixels.to(vae.rotation) / 127.5 - 1)
        return [{"latents": latent} for latent in latents.cpu()]

    def _encode_captions(self, models: Models, samples: Sequence[Sample]) -> list[dict[str, Tensor]]:
        words = cast(nn.Embedding, models["text"])
        read = [s.caption.lower().split()[:_LONGEST] for s in samples]
        hashed = [[zlib.crc32(word.encode()) % _WORDS for word in caption] for caption in read]
        ids = [torch.tensor(h, dtype=torch.long, device=words.weight.device) for h in hashed]
        return [{f"{RAGGED}text": words(i).cpu()} for i in ids]


class ToyAttention(nn.Module):
    """One head of self-attention; the checkpoint stores ``to_q``, ``to_k`` and ``to_v`` as rows of one ``qkv``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return what every token gathers from the others."""
        gathered = F.scaled_dot_product_attention(self.to_q(x_BTD), self.to_k(x_BTD), self.to_v(x_BTD))
        return cast(Tensor, self.out(gathered))


class ToyBlock(nn.Module):
    """Attention and one linear layer, each added to its input."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attn, self.feed_forward = ToyAttention(dim), nn.Linear(dim, dim)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return the tokens a block further."""
        x_BTD = x_BTD + self.attn(F.layer_norm(x_BTD, x_BTD.shape[-1:]))
        return x_BTD + F.gelu(self.feed_forward(F.layer_norm(x_BTD, x_BTD.shape[-1:])))


class ToyModel(nn.Module):
    """Patches, the noise level and the words in; one velocity for each patch out."""

    def __init__(self, dim: int, depth: int, patch: int) -> None:
        super().__init__()
        self.patch_in, self.time_in, self.text_in = nn.Linear(patch, dim), nn.Linear(16, dim), nn.Linear(_TEXT, dim)
        self.blocks = nn.ModuleList(ToyBlock(dim) for _ in range(depth))
        self.patch_out = nn.Linear(dim, patch)

    def forward(self, patches_BTD: Tensor, time_BD: Tensor, text_BD: Tensor) -> Tensor:
        """Return the velocity of every patch."""
        x_BTD = self.patch_in(patches_BTD) + (self.time_in(time_BD) + self.text_in(text_BD))[:, None]
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return cast(Tensor, self.patch_out(F.layer_norm(x_BTD, x_BTD.shape[-1:])))


@attrs.frozen(eq=False)
class ToyConditions:
    """The mean of a caption's words, shape (B, 16)."""

    text: Tensor


@attrs.frozen
class ToyDenoiser(Denoiser[ToyConditions]):
    """Ask ``ToyModel`` for the velocity of a latent."""

    toy: Toy

    def load(
        self,
        expert: Expert,
        *,
        device: torch.device,
        dtype: torch.dtype,
        prepare: Prepare | None = None,
        on_weight: WeightHook | None = None,
    ) -> nn.Module:
        model = self.empty(expert)
        if prepare is not None:
            prepare(model)
        with self._open(expert) as checkpoint:
            load_into(model, checkpoint, keys=self.toy.keys, device=device, dtype=dtype, on_weight=on_weight)
        return model.requires_grad_(False).eval()

    def empty(self, expert: Expert) -> nn.Module:
        with torch.device("meta"):
            return ToyModel(self.toy.dim, self.toy.depth, patch=self.toy.geometry.channels * 4)

    def stored(self, expert: Expert) -> Mapping[str, StoredWeight]:
        with self._open(expert) as checkpoint:
            return stored_weights(checkpoint, self.toy.keys)

    def entry(self, model: nn.Module, latent_shape: Sequence[int]) -> Mapping[str, tuple[int, ...]]:
        return {"latents": tuple(latent_shape), f"{RAGGED}text": (_LONGEST, _TEXT)}

    def clean(self, batch: Batch) -> Tensor:
        return batch["latents"].float()

    def conditions(self, batch: Batch) -> ToyConditions:
        return ToyConditions(torch.stack([t.float().sum(0) / max(1, len(t)) for t in batch.each("text")]))

    def velocity(self, model: nn.Module, x: Tensor, sigma: Tensor, cond: ToyConditions) -> Tensor:
        dtype = cast(ToyModel, model).patch_in.weight.dtype
        phase = sigma[:, None].float() * torch.logspace(0, 1.5, 8, device=sigma.device)
        time = torch.cat([phase.sin(), phase.cos()], dim=1)
        patches = rearrange(x, "b c f (h p) (w q) -> b (f h w) (c p q)", p=2, q=2)
        predicted: Tensor = model(patches.to(dtype), time.to(dtype), cond.text.to(dtype))
        shape = {"f": x.shape[2], "h": x.shape[3] // 2, "p": 2, "q": 2}
        return rearrange(predicted.float(), "b (f h w) (c p q) -> b c f (h p) (w q)", **shape)

    def _open(self, expert: Expert) -> Checkpoint:
        ref = self.toy.weight(expert.component)
        if expert.component in self.toy.weights:
            return open_checkpoint(ref.resolve())
        return Checkpoint([DrawnWeights(path=Path(ref.name), tensors=original_weights(self.toy))])


@attrs.define(eq=False)
class DrawnWeights:
    """Stand where an open file of tensors stands."""

    path: Path
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = attrs.field(factory=dict)

    def names(self) -> tuple[str, ...]:
        """Return the names of all tensors."""
        return tuple(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return tuple(self.tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        """Return a tensor's type."""
        return self.tensors[name].dtype

    def copy(self, name: str, target: Tensor, *, start: int = 0) -> None:
        """Fill ``target`` with the rows of a tensor that begin at ``start``."""
        tensor = self.tensors[name]
        target.copy_(tensor[start : start + len(target)] if tensor.ndim else tensor)

    def close(self) -> None:
        """Do nothing."""


def original_weights(toy: Toy) -> dict[str, Tensor]:
    """Draw the checkpoint of a toy: tensors under their ORIGINAL names, as a file of it would have them."""
    generator = Generator().manual_seed(toy.seed)
    shapes: dict[str, list[int]] = {}
    for library, parameter in toy.denoiser().empty(Expert()).named_parameters():
        name, place = toy.keys.to_original(library)
        shapes[name] = [parameter.shape[0] * place.parts, *parameter.shape[1:]]
    return {n: torch.randn(s, generator=generator) / math.sqrt(s[-1]) for n, s in shapes.items()}
