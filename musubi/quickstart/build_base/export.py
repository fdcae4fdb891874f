"""Write the trained models as the files of a released Wan 2.1, so that the quickstart loads what users load."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from musubi.keymap import KeyMap
from musubi.quickstart import shapes
from musubi.quickstart.build_base import dit, vae
from musubi.quickstart.build_base.group import Group
from musubi.quickstart.build_base.latents import load_latents
from musubi.quickstart.build_base.loop import averaged_weights
from musubi.quickstart.build_base.options import Options
from musubi.quickstart.build_base.original_names import DIT, UMT5, VAE, renamed, restored
from musubi.quickstart.build_base.text import encode_captions, new_tokenizer
from musubi.quickstart.classifier import CLASSES

logger = logging.getLogger(__name__)

TOLERANCE = 0.03
EMBEDDING_TWIN = "encoder.embed_tokens.weight"


def export(options: Options, group: Group) -> None:
    """Write the embedded base to `out/base`."""
    if not group.leads:
        return
    folder = options.out / "base"
    folder.mkdir(parents=True, exist_ok=True)
    latents = load_latents(options.out)
    denoiser = dit.load_denoiser(options.out / "dit.pt")
    autoencoder = vae.newest_vae(options.out)
    statistics = {"latents_mean": latents.mean.tolist(), "latents_std": latents.std.tolist()}
    text = {name: weight for name, weight in denoiser.text.state_dict().items() if name != EMBEDDING_TWIN}
    heads = {"wan.num_heads": str(dit.CONFIG["num_attention_heads"])}
    text_heads = {"umt5.num_heads": str(denoiser.text.config.num_heads)}
    vae_metadata = {f"wan_vae.{name}": json.dumps(values) for name, values in statistics.items()}
    _write(denoiser.dit.state_dict(), DIT, folder / "dit.safetensors", heads, torch.bfloat16)
    _write(text, UMT5, folder / "t5.safetensors", text_heads, torch.bfloat16)
    _write(autoencoder.state_dict(), VAE, folder / "vae.safetensors", vae_metadata, torch.float16)
    classifier = averaged_weights(options.out / "classifier.pt")
    _write(classifier, None, folder / "classifier.safetensors", {"classes": json.dumps(CLASSES)}, torch.float16)
    _write_tokenizer(folder / "tokenizer")
    _write_json(_config(options, denoiser, statistics), folder / "config.json")
    _check(folder, denoiser, autoencoder)


def load_exported(folder: Path) -> tuple[dit.Denoiser, AutoencoderKLWan]:
    """Load the exported files back into the classes of diffusers and transformers, in float32."""
    denoiser = dit.new_denoiser(0)
    autoencoder = AutoencoderKLWan(**vae.CONFIG)
    _read(denoiser.dit, DIT, folder / "dit.safetensors")
    _read(denoiser.text, UMT5, folder / "t5.safetensors")
    _read(autoencoder, VAE, folder / "vae.safetensors")
    return denoiser, autoencoder


def _write(
    weights: dict[str, Tensor], keys: KeyMap | None, path: Path, metadata: dict[str, str], dtype: torch.dtype
) -> None:
    small = {name: weight.to(dtype).contiguous() for name, weight in renamed(weights, keys).items()}
    partial = path.with_suffix(".partial")
    save_file(small, partial, metadata={"format": "pt", **metadata})
    partial.chmod(0o644)
    partial.replace(path)


def _write_tokenizer(folder: Path) -> None:
    new_tokenizer().save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    _write_json({**config, "tokenizer_class": "PreTrainedTokenizerFast"}, folder / "tokenizer_config.json")


def _write_json(value: object, path: Path) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def _read(module: nn.Module, keys: KeyMap | None, path: Path) -> None:
    names = [name for name in module.state_dict() if name != EMBEDDING_TWIN]
    weights = {name: weight.float() for name, weight in restored(load_file(path), keys, names).items()}
    missing, unexpected = module.load_state_dict(weights, strict=False)
    assert not unexpected, "the maps invent no weight"
    assert set(missing) <= {EMBEDDING_TWIN}, "the maps cover every weight"


def _config(options: Options, denoiser: dit.Denoiser, statistics: dict[str, list[float]]) -> dict[str, object]:
    kept = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
    tables = {
        "relative_attention_num_buckets": denoiser.text.config.relative_attention_num_buckets,
        "relative_attention_max_distance": denoiser.text.config.relative_attention_max_distance,
    }
    return {
        "dit": dit.CONFIG,
        "vae": {**vae.CONFIG, **statistics},
        "t5": {name: getattr(denoiser.text.config, name) for name in kept} | tables,
        "text_length": 512,
        "image_size": [shapes.SIZE, shapes.SIZE],
        "num_frames": shapes.FRAMES,
        "fps": shapes.FPS,
        "sampling": {"steps": 20, "guidance_scale": 4.0, "shift": 3.0, "negative_prompt": ""},
        "training": {"seed": options.seed, "steps": _steps(options.out), "shift": dit.SHIFT},
    }


def _steps(folder: Path) -> dict[str, int]:
    return {
        path.stem: torch.load(path, weights_only=True, map_location="cpu")["step"]
        for path in sorted(folder.glob("*.pt"))
    }


@torch.no_grad()
def _check(folder: Path, denoiser: dit.Denoiser, autoencoder: AutoencoderKLWan) -> None:
    """Compare what the files give with what was trained: they differ by rounding only."""
    read_denoiser, read_autoencoder = load_exported(folder)
    captions = ["a big red house on a blue background", "a yellow fish at night"]
    latents = dit.sample(denoiser, captions, steps=2)
    sigma = torch.tensor([0.3, 0.8])
    velocities = [
        model.velocity(latents, sigma, encode_captions(model.text, captions)) for model in (denoiser, read_denoiser)
    ]
    pictures = [vae.decode(model, latents) for model in (autoencoder, read_autoencoder)]
    for kind, (trained, read) in {"dit": velocities, "vae": pictures}.items():
        error = float((trained - read).square().mean().sqrt() / trained.square().mean().sqrt())
        logger.info("%s: files differ from the trained weights by %.4f (relative)", kind, error)
        assert error < TOLERANCE, f"{kind}: the files do not hold what was trained"
