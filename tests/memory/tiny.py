"""A real transformer of toy size with adapters that do something, and one training step of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import init_empty_weights
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from safetensors.torch import save_file
from torch import Tensor, nn

from musubi import LoRA, Wan
from musubi.memory.policy import MemoryPolicy, Placement, preparation, weight_hook
from musubi.networks.adapters import AdapterSet
from musubi.weights.checkpoint import open_checkpoint
from musubi.weights.load import load_into

LAYERS = 6
WAN = Wan.t2v_1_3b()
LAYOUT, KEYS = WAN.layout, WAN.keys
PLACEMENT = Placement(title="a toy", layout=LAYOUT, device=torch.device("cpu"), dtype=torch.float32)


def transformer() -> nn.Module:
    """Return a model of width 64 (blocks of 64 fit) whose feed-forward is 96 wide (they do not)."""
    torch.manual_seed(0)
    model: nn.Module = _new().requires_grad_(requires_grad=False).eval()
    return model


def loaded(folder: Path, policies: Sequence[MemoryPolicy], *, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return the same model by way of a file, changed on its way in as the policies want."""
    file = folder / "toy.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in transformer().state_dict().items()}, file)
    with init_empty_weights(include_buffers=False):
        model: nn.Module = _new()
    preparation(policies, keys=KEYS, layout=LAYOUT)(model)
    hook = weight_hook(policies, keys=KEYS, layout=LAYOUT)
    with open_checkpoint(file) as checkpoint:
        load_into(model, checkpoint, keys=KEYS, device="cpu", dtype=torch.float32, on_weight=hook)
    return model.eval()


def adapters(model: nn.Module) -> AdapterSet:
    """Return adapters, not attached, whose effect is not zero."""
    generator = torch.Generator().manual_seed(1)
    made = AdapterSet.create(LoRA(rank=2), model, keys=KEYS, layout=LAYOUT, generator=generator)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.1, generator=generator)
    return made


def inputs(seed: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Return latents of 8 tokens, a time and 5 text tokens."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(1, 4, 2, 4, 4, generator=generator)
    return latents, torch.tensor([500.0]), torch.randn(1, 5, 16, generator=generator)


def forward(model: nn.Module, seed: int = 2) -> Tensor:
    """Return the model's output."""
    output: Tensor = model(*inputs(seed), return_dict=False)[0]
    return output


def generation(model: nn.Module) -> Tensor:
    """Return the model's output without gradients."""
    with torch.no_grad():
        return forward(model)


def step(model: nn.Module, trained: AdapterSet) -> list[Tensor]:
    """Return the output of a forward, and every adapter gradient of its backward."""
    trained.zero_grad()
    output = forward(model)
    output.square().mean().backward()
    return [output.detach(), *gradients(trained)]


def gradients(trained: AdapterSet) -> list[Tensor]:
    """Return copies of all gradients; there must be one for each parameter."""
    parameters = list(trained.parameters())
    found = [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]
    assert len(found) == len(parameters)
    return found


def equal(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    """Tell whether two lists are the same, bit for bit."""
    return len(first) == len(second) and all(map(torch.equal, first, second))


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of all parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def unchanged(model: nn.Module, before: dict[str, Tensor]) -> bool:
    """Tell whether a model's parameters and buffers are those of a snapshot, bit for bit."""
    return all(_bits_equal(before[name], tensor) for name, tensor in model.state_dict().items())


def _bits_equal(first: Tensor, second: Tensor) -> bool:
    same_form = first.dtype == second.dtype and first.shape == second.shape and first.device == second.device
    return same_form and torch.equal(_bits(first), _bits(second))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _new() -> nn.Module:
    model: nn.Module = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=32,
        ffn_dim=96,
        num_layers=LAYERS,
        text_dim=16,
        in_channels=4,
        out_channels=4,
        freq_dim=32,
    )
    return model


def rotation(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Return what the model gives its blocks for positions."""
    found: tuple[Tensor, Tensor] = model.get_submodule("rope")(inputs()[0])
    return found
