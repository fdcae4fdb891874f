from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import pytest
import torch
from torch import nn

from musubi import (
    EMA,
    AdamW,
    BlockSwap,
    ConfigError,
    CustomOptimizer,
    GradientCheckpointing,
    LoRA,
    Rule,
    Trainer,
)
from musubi.architecture import Expert, Prepare, WeightHook
from musubi.testing.toy import Toy, ToyDenoiser
from musubi.training.material import Material
from musubi.training.processes import Processes
from musubi.training.setup import Setup


class Kept(Toy):
    """A toy whose loaded networks can be looked at afterwards."""

    def denoiser(self) -> ToyDenoiser:
        return KeptDenoiser(self)


class KeptDenoiser(ToyDenoiser):
    loaded: list[nn.Module] = []  # noqa: RUF012  (filled by the tests of this file)

    def load(
        self,
        expert: Expert,
        *,
        device: torch.device,
        dtype: torch.dtype,
        prepare: Prepare | None = None,
        on_weight: WeightHook | None = None,
    ) -> nn.Module:
        model = super().load(expert, device=device, dtype=dtype, prepare=prepare, on_weight=on_weight)
        self.loaded.append(model)
        return model


@contextmanager
def opened(trainer: Trainer[Toy]) -> Generator[Setup]:
    processes = Processes("cpu")
    with ExitStack() as stack:
        yield Setup.open(trainer, processes, Material.open(trainer, processes), stack)


def traces(model: nn.Module) -> list[object]:
    """Return what adapters and policies leave on modules while they are in use."""
    return [
        (dict(module._forward_hooks), dict(module._forward_pre_hooks), vars(module).get("forward"))
        for module in model.modules()
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    ]


@pytest.fixture
def kept(trainer: Trainer[Toy]) -> Trainer[Toy]:
    KeptDenoiser.loaded.clear()
    return trainer.replace(model=Kept(depth=4), memory=(GradientCheckpointing(), BlockSwap(blocks=2)))


def test_what_was_attached_to_the_model_is_gone_when_the_run_is_over(kept: Trainer[Toy]) -> None:
    with opened(kept) as setup:
        assert traces(setup.model)

    (model,) = KeptDenoiser.loaded
    assert traces(model) == []


def test_it_is_gone_too_if_something_fails_on_the_way(kept: Trainer[Toy]) -> None:
    wrong = kept.with_optimizer(CustomOptimizer(name="NAdam", arguments={"nonsense": 1}))

    with pytest.raises(ConfigError, match="nonsense"), opened(wrong):
        pass

    (model,) = KeptDenoiser.loaded
    assert traces(model) == []


def test_only_the_adapters_learn(trainer: Trainer[Toy]) -> None:
    with opened(trainer) as setup:
        assert not any(parameter.requires_grad for parameter in setup.model.parameters())
        assert all(parameter.requires_grad for parameter in setup.trained.parameters())
        assert setup.what == "lora"


def test_every_group_has_its_share_of_the_rate(trainer: Trainer[Toy]) -> None:
    network = LoRA(rank=2, plus_ratio=4, rules=(Rule(modules=r"blocks\.1\..*", rate=0.5),))

    with opened(trainer.replace(network=network, optimizer=AdamW(lr=1e-2))) as setup:
        rates = dict(zip([g["name"] for g in setup.optimizer.param_groups], setup.base_rates, strict=True))

    assert rates == pytest.approx({"unet": 1e-2, "unet plus": 4e-2, "unet x0.5": 5e-3, "unet x0.5 plus": 2e-2})


def test_averages_are_in_use_where_the_weights_are_looked_at_and_nowhere_else(trainer: Trainer[Toy]) -> None:
    with opened(trainer.with_ema(EMA())) as setup:
        parameter = next(setup.trained.parameters())
        started = parameter.detach().clone()
        with torch.no_grad():
            parameter.add_(1.0)

        with setup.best_weights():
            assert torch.equal(parameter, started)
        assert torch.equal(parameter, started + 1)
