from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import attrs
import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

from musubi.architecture import Architecture, Geometry
from musubi.architectures.wan.spec import Wan
from musubi.inference.prompts import Prompts, encode_prompts, words_of
from musubi.networks.adapters import AdapterSet
from musubi.networks.file import LoRAFile
from musubi.networks.lora import LoRA
from musubi.testing.checkpoints import tiny_wan
from musubi.testing.toy import Toy, ToyConditions, ToyDenoiser

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

CPU = torch.device("cpu")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Generator[None]:
    """Tiny networks wait for threads longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


_TEXTS = ("a red fox", "two blue birds in snow", "")


@attrs.define
class Counting(ToyDenoiser):
    """The toy's denoiser, which notes every question."""

    asked: list[Tensor] = attrs.field(factory=list, init=False)
    modes: list[bool] = attrs.field(factory=list, init=False)

    def velocity(self, model: nn.Module, x: Tensor, sigma: Tensor, cond: ToyConditions) -> Tensor:
        self.asked.append(sigma)
        self.modes.append(model.training)
        return super().velocity(model, x, sigma, cond)


@attrs.frozen(kw_only=True)
class Loaded:
    """A toy ready to be sampled from."""

    denoiser: Counting
    model: nn.Module
    prompts: Prompts
    geometry: Geometry

    def conditions(self, *texts: str) -> ToyConditions:
        return self.prompts.conditions(self.denoiser, words_of(Toy(), texts), device=CPU)


@pytest.fixture
def loaded() -> Loaded:
    toy = Toy()
    denoiser = Counting(toy)
    return Loaded(
        denoiser=denoiser,
        model=denoiser.load(toy.experts[0], device=CPU, dtype=torch.float32),
        prompts=encode_prompts(toy, words_of(toy, _TEXTS), device=CPU, dtype=torch.float32),
        geometry=toy.geometry,
    )


def lora_for(model: Architecture, *, seed: int = 0, strength: float = 0.3) -> LoRAFile:
    """Return a LoRA for all of a model's default targets, with an effect."""
    loaded = model.denoiser().empty(model.experts[0])
    adapters = AdapterSet.create(
        LoRA(rank=4, alpha=4),
        loaded,
        keys=model.keys,
        layout=model.layout,
        generator=torch.Generator().manual_seed(seed),
    )
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in adapters.named_parameters():
            if name.endswith("up"):
                parameter.copy_(strength * torch.randn(parameter.shape, generator=generator))
    return adapters.to_file({})


@pytest.fixture
def toy_lora() -> LoRAFile:
    return lora_for(Toy())


@pytest.fixture(scope="session")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Wan:
    return tiny_wan(tmp_path_factory.mktemp("tiny_wan"))


@pytest.fixture(scope="session")
def wan_lora(wan: Wan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lora_for(wan).save(tmp_path_factory.mktemp("lora") / "clay.safetensors")
