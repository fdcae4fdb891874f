"""Training steps of the reference, by its own classes: model, LoRA network, noise, loss and loop body.

Run as a process of its own by ``bench_training_step.py``, with the reference's ``src`` on PYTHONPATH:
``python reference_step.py DIT RANK LATENT TEXT``. For every line with a number on stdin it takes that many steps and
writes the CPU seconds they took, and the last loss, as a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file

OPTIONS = {
    "task": "t2v-1.3B",
    "timestep_sampling": "shift",
    "discrete_flow_shift": 3.0,
    "sigmoid_scale": 1.0,
    "weighting_scheme": "none",
    "min_timestep": None,
    "max_timestep": None,
    "preserve_distribution_shape": False,
    "gradient_checkpointing": False,
    "mixed_precision": "no",
    "fp8_scaled": False,
}


def build(path: Path) -> tuple[Any, dict[str, int]]:
    """Return the reference's model with a checkpoint's weights, and its sizes."""
    weights = load_file(path)
    dim, channels = weights["patch_embedding.weight"].shape[:2]
    sizes = {
        "dim": dim,
        "ffn_dim": weights["blocks.0.ffn.0.weight"].shape[0],
        "freq_dim": weights["time_embedding.0.weight"].shape[1],
        "text_dim": weights["text_embedding.0.weight"].shape[1],
        "num_layers": 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks.")),
    }
    module = import_module("musubi_tuner.wan.modules.model")
    model = module.WanModel(
        in_dim=channels, out_dim=channels, num_heads=dim // 128, cross_attn_norm=True, attn_mode="torch", **sizes
    )
    model.load_state_dict(weights)
    return model.requires_grad_(False).eval(), sizes


def without_torchvision() -> None:
    """Let the reference be imported where torchvision, which only its sampling needs, is not installed."""
    if find_spec("torchvision") is not None:
        return
    for library in ("transformers.image_utils", "diffusers", "accelerate"):
        import_module(library)  # looks for the real one, and must not find ours
    for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__spec__ = ModuleSpec(name, None)


class Steps:
    """The body of the reference's training loop, with nothing to save, sample or log."""

    def __init__(self, path: Path, rank: int, latent: int, text: int) -> None:
        trainer = import_module("musubi_tuner.wan_train_network")
        schedule = import_module("musubi_tuner.modules.scheduling_flow_match_discrete")
        accelerate = import_module("accelerate")
        self.args = argparse.Namespace(**OPTIONS)
        self.accelerator = accelerate.Accelerator(cpu=True)
        self.trainer = trainer.WanNetworkTrainer()
        self.trainer.config = import_module("musubi_tuner.wan.configs").WAN_CONFIGS["t2v-1.3B"]
        self.trainer._i2v_training = self.trainer._control_training = self.trainer.high_low_training = False
        self.model, sizes = build(path)
        create = import_module("musubi_tuner.networks.lora_wan").create_arch_network
        network = create(1.0, rank, rank, None, None, self.model)
        network.apply_to(None, self.model, apply_text_encoder=False, apply_unet=True)
        network.prepare_grad_etc(self.model)
        parameters, _ = network.prepare_optimizer_params(unet_lr=1e-4)
        optimizer = torch.optim.AdamW(parameters, lr=1e-4)
        self.network, self.optimizer = self.accelerator.prepare(network, optimizer)
        self.noise = schedule.FlowMatchDiscreteScheduler(shift=3.0, reverse=True, solver="euler")
        self.batch: dict[str, Any] = {
            "latents": torch.randn(1, 16, 1, latent, latent),
            "t5": [torch.randn(text, sizes["text_dim"])],
            "timesteps": None,
        }

    def step(self) -> float:
        """Take one step and return the loss."""
        latents, device = self.batch["latents"], self.accelerator.device
        with self.accelerator.accumulate(self.network):
            noise = torch.randn_like(latents)
            noisy, timesteps = self.trainer.get_noisy_model_input_and_timesteps(
                self.args, noise, latents, self.batch["timesteps"], self.noise, device, torch.float32
            )
            predicted, target = self.trainer.call_dit(
                self.args,
                self.accelerator,
                self.model,
                latents,
                self.batch,
                noise,
                noisy,
                timesteps,
                torch.float32,
            )
            loss = torch.nn.functional.mse_loss(predicted, target, reduction="none").mean()
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())


def main() -> None:
    """Answer every line of stdin."""
    torch.set_num_threads(1)
    without_torchvision()
    if not torch.cuda.is_available():
        torch.cuda.current_device = lambda: "cpu"  # type: ignore[assignment, return-value]  # asked for at import
    path, rank, latent, text = sys.argv[1:]
    steps = Steps(Path(path), int(rank), int(latent), int(text))
    steps.step()
    for line in sys.stdin:
        began = time.process_time()
        losses = [steps.step() for _ in range(int(line))]
        sys.stdout.write(json.dumps({"cpu_s": time.process_time() - began, "loss": losses[-1]}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
