"""Parameters that are shared out over processes, as FSDP2 does; one process is enough to meet their type."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from musubi.core.errors import ConfigError
from musubi.optim.adafactor import Adafactor
from musubi.optim.optimizers import AdamW, Optimizer
from musubi.parameters import ParameterGroup


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[DeviceMesh]:
    distributed.init_process_group("gloo", init_method=(tmp_path / "store").as_uri(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def _model() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(8, 4).to(torch.bfloat16)


def _step(spec: Optimizer, model: nn.Module) -> None:
    optimizer = spec.build([ParameterGroup(name="model", parameters=tuple(model.parameters()))])
    model(torch.ones(2, 8, dtype=torch.bfloat16)).square().mean().backward()
    torch.manual_seed(1)
    optimizer.step()


def test_bfloat16_shares_are_rounded_as_the_whole_is(mesh: DeviceMesh) -> None:
    whole, shared = _model(), _model()
    fully_shard(shared, mesh=mesh)

    for model in (whole, shared):
        _step(AdamW(lr=0.01), model)

    for one, other, before in zip(whole.parameters(), shared.parameters(), _model().parameters(), strict=True):
        assert isinstance(other, DTensor)
        assert torch.equal(one, other.full_tensor())
        assert not torch.equal(one, before)


def test_adafactor_refuses_shares(mesh: DeviceMesh) -> None:
    shared = _model()
    fully_shard(shared, mesh=mesh)

    with pytest.raises(ConfigError, match=r"shared out over processes \(FSDP\).*AdamW can"):
        _step(Adafactor(), shared)
