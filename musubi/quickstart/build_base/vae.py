"""Train the tiny Wan VAE: pictures first, then pictures and clips, then the decoder alone.

Shape suffixes: B batch, C channels, F frames, H height, W width.
"""

# The class has no public way to decode with gradients or to skip its frame cache.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, WanCausalConv3d, WanRMS_norm
from torch import Tensor, nn
from torch.nn import functional

from musubi.quickstart.build_base.group import Group
from musubi.quickstart.build_base.loop import Chance, Schedule, averaged_weights, train
from musubi.quickstart.build_base.options import Options
from musubi.quickstart.build_base.pictures import random_clips, random_pictures

LATENT_CHANNELS = 16
CONFIG: dict[str, Any] = {
    "base_dim": 8,
    "z_dim": LATENT_CHANNELS,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
}
KL_WEIGHT = 1e-4
CLIP_SHARE = 0.5
SQUARE_WEIGHT = 3.0
EDGE_WEIGHT = 0.5
WIDEST_TEMPORAL = 16
PICTURES = Schedule(steps=1700, rate=2e-3, hold=0.85, average=0.998)
CLIPS = Schedule(steps=660, rate=1.5e-3, hold=0.62, average=0.99, save_every=100)
DECODER = Schedule(steps=3200, rate=1.5e-3, hold=0.45, average=0.998)


def train_vae(options: Options, group: Group) -> None:
    """Train the VAE's first two stages; `vae_clips.pt` then holds it."""
    vae = new_vae(options.seed)
    nn.Module.to(vae, options.device)
    with quick_layers():
        train(VaeStage("vae_pictures", vae, pictures=8, clips=0), PICTURES, options, group)
        if not (options.out / "vae_clips.pt").exists():
            vae.load_state_dict(averaged_weights(options.out / "vae_pictures.pt"))
        train(VaeStage("vae_clips", vae, pictures=8, clips=1), CLIPS, options, group)


def train_decoder(options: Options, group: Group) -> None:
    """Sharpen the decoder for the latents that the encoder makes; the encoder stays as it is."""
    vae = load_vae(options.out / "vae_clips.pt")
    nn.Module.to(vae, options.device)
    with quick_layers():
        train(DecoderStage("vae_decoder", vae, pictures=8, clips=1), DECODER, options, group)


class VaeStage:
    """Reconstruct pictures and clips through sampled latents."""

    def __init__(self, name: str, vae: AutoencoderKLWan, *, pictures: int, clips: int) -> None:
        self.name = name
        self.module: nn.Module = vae
        self.vae = vae
        self.parameters = list(vae.parameters())
        self.pictures, self.clips = pictures, clips

    def loss(self, chance: Chance) -> Tensor:
        """Return the mean over pictures and clips, frame for frame."""
        total = self.pictures + self.clips * 2
        loss = self._reconstruct(random_pictures(chance.numpy, self.pictures), chance) * (self.pictures / total)
        if self.clips and chance.shared.random() < CLIP_SHARE:
            loss = loss + self._reconstruct(random_clips(chance.numpy, self.clips), chance) * (self.clips * 2 / total)
        return loss

    def _reconstruct(self, video_BCFHW: Tensor, chance: Chance) -> Tensor:
        video_BCFHW = video_BCFHW.to(self.vae.device)
        mean, log_variance = encode(self.vae, video_BCFHW)
        noise = torch.randn(mean.shape, generator=chance.torch).to(mean)
        decoded = decode(self.vae, mean + noise * (0.5 * log_variance).exp())
        return reconstruction_error(decoded, video_BCFHW) + KL_WEIGHT * divergence(mean, log_variance)


class DecoderStage(VaeStage):
    """Reconstruct from the latents' means with a little noise, and train the decoder only."""

    def __init__(self, name: str, vae: AutoencoderKLWan, *, pictures: int, clips: int) -> None:
        super().__init__(name, vae, pictures=pictures, clips=clips)
        vae.requires_grad_(False)
        vae.decoder.requires_grad_(True)
        vae.post_quant_conv.requires_grad_(True)
        self.parameters = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]

    def _reconstruct(self, video_BCFHW: Tensor, chance: Chance) -> Tensor:
        video_BCFHW = video_BCFHW.to(self.vae.device)
        with torch.no_grad():
            mean, _ = encode(self.vae, video_BCFHW)
        noise = torch.randn(mean.shape, generator=chance.torch).to(mean)
        return reconstruction_error(decode(self.vae, mean + 0.05 * mean.std() * noise), video_BCFHW)


def new_vae(seed: int) -> AutoencoderKLWan:
    """Build a VAE that treats the frames of a clip one by one: what came before has no weight yet."""
    torch.manual_seed(seed)
    vae: AutoencoderKLWan = AutoencoderKLWan(**CONFIG)
    for module in vae.modules():
        if isinstance(module, WanCausalConv3d) and module.kernel_size[0] == 3:
            _forget_the_past(module)
    with torch.no_grad():
        vae.quant_conv.get_parameter("bias")[LATENT_CHANNELS:] = -5.0
    return vae


def load_vae(path: Path) -> AutoencoderKLWan:
    """Load the averaged weights of a checkpoint into a VAE."""
    vae: AutoencoderKLWan = AutoencoderKLWan(**CONFIG)
    vae.load_state_dict(averaged_weights(path))
    return vae


def newest_vae(folder: Path) -> AutoencoderKLWan:
    """Load the VAE with the sharpened decoder if there is one, otherwise the one before that."""
    sharpened = folder / "vae_decoder.pt"
    return load_vae(sharpened if sharpened.exists() else folder / "vae_clips.pt")


def encode(vae: AutoencoderKLWan, video_BCFHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and log variance of the latents, gradients included."""
    moments: Any = vae._encode(video_BCFHW)
    mean, log_variance = moments.chunk(2, dim=1)
    return mean, log_variance.clamp(-20, 5)


def decode(vae: AutoencoderKLWan, latents_BCFHW: Tensor) -> Tensor:
    """Decode as the class does, but without its clamp, which would stop gradients."""
    vae.clear_cache()
    hidden = vae.post_quant_conv(latents_BCFHW)
    frames = []
    for index in range(hidden.shape[2]):
        vae._conv_idx = [0]
        frame = hidden[:, :, index : index + 1]
        frames.append(vae.decoder(frame, feat_cache=vae._feat_map, feat_idx=vae._conv_idx, first_chunk=index == 0))
    vae.clear_cache()
    return torch.cat(frames, dim=2)


def reconstruction_error(decoded: Tensor, video: Tensor) -> Tensor:
    """Return the error of pixels, absolute and squared, and of the steps between neighbours, which keeps edges sharp.

    The squares matter early on: without them colours come hundreds of steps after shapes.
    """
    error = decoded - video
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + SQUARE_WEIGHT * error.square().mean() + EDGE_WEIGHT * edges


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the mean divergence of the latents from a normal distribution."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


@contextmanager
def quick_layers() -> Generator[None]:
    """Run causal convolutions as 2-D ones where that changes nothing, and norms in fewer passes: half the CPU time."""
    stock = WanCausalConv3d.forward, WanRMS_norm.forward

    def convolve(self: WanCausalConv3d, x_BCFHW: Tensor, cache_x: Tensor | None = None) -> Tensor:
        looks_back = x_BCFHW.shape[-1] <= WIDEST_TEMPORAL and (x_BCFHW.shape[2] > 1 or cache_x is not None)
        if self.kernel_size[0] != 3 or self.stride[0] != 1 or looks_back:
            result: Tensor = stock[0](self, x_BCFHW, cache_x)
            return result
        return _newest_tap(self, x_BCFHW)

    def normalise(self: WanRMS_norm, x_BC: Tensor) -> Tensor:
        result: Tensor = x_BC * torch.rsqrt(x_BC.square().mean(dim=1, keepdim=True) + 1e-12) * self.gamma
        return result

    _use(convolve, normalise)
    try:
        yield
    finally:
        _use(*stock)


def _use(convolve: Any, normalise: Any) -> None:
    causal: Any = WanCausalConv3d
    norm: Any = WanRMS_norm
    causal.forward, norm.forward = convolve, normalise


def _newest_tap(convolution: WanCausalConv3d, x_BCFHW: Tensor) -> Tensor:
    batch, channels, frames, height, width = x_BCFHW.shape
    folded = x_BCFHW.transpose(1, 2).reshape(batch * frames, channels, height, width)
    padding = (int(convolution._padding[2]), int(convolution._padding[0]))
    result = functional.conv2d(folded, convolution.weight[:, :, 2], convolution.bias, padding=padding)
    return result.view(batch, frames, -1, height, width).transpose(1, 2)


@torch.no_grad()
def _forget_the_past(convolution: WanCausalConv3d) -> None:
    convolution.weight[:, :, :2] = 0
    if convolution.kernel_size == (3, 1, 1):
        identity = torch.eye(convolution.in_channels)[:, :, None, None]
        copies = convolution.out_channels // convolution.in_channels
        convolution.weight[:, :, 2] = identity.repeat(copies, 1, 1, 1)
        nn.init.zeros_(convolution.get_parameter("bias"))
