from __future__ import annotations

import pytest
import torch
from torch import nn

from musubi.networks.adapters import AdapterSet
from musubi.networks.lora import LoRA
from musubi.testing.toy import Toy
from musubi.training.expert_adapters import ExpertAdapters

CPU = torch.device("cpu")


def model() -> nn.Module:
    toy = Toy()
    return toy.denoiser().load(toy.experts[0], device=CPU, dtype=torch.float32)


def adapters(*, rank: int = 2, max_norm: float | None = None, on: nn.Module | None = None) -> AdapterSet:
    toy = Toy()
    network = LoRA(rank=rank, max_norm=max_norm) if max_norm else LoRA(rank=rank)
    generator = torch.Generator().manual_seed(0)
    return AdapterSet.create(network, on or model(), keys=toy.keys, layout=toy.layout, generator=generator)


def grown(adapter: AdapterSet, by: float) -> AdapterSet:
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            if name.endswith("up"):
                parameter.fill_(by)
    return adapter


def test_each_experts_groups_carry_its_name_and_rate() -> None:
    both = ExpertAdapters({"high": adapters(), "low": adapters(rank=3)}, rates={"low": 0.5})

    groups = both.groups()

    assert [group.name.split()[0] for group in groups] == ["high"] * (len(groups) // 2) + ["low"] * (len(groups) // 2)
    assert {group.rate for group in groups if group.name.startswith("low")} == {0.5}
    assert {group.rate for group in groups if group.name.startswith("high")} == {1.0}
    assert sum(len(group.parameters) for group in groups) == len(list(both.parameters()))


def test_each_is_attached_to_its_own_model() -> None:
    models = nn.ModuleDict({"high": model(), "low": model()})
    own = {name: grown(adapters(on=models[name]), by=0.1 if name == "low" else 0.0) for name in models}
    both, toy = ExpertAdapters(own, rates={}), Toy().denoiser()
    batch = torch.ones(1, *Toy().geometry.latent_shape((32, 32)))
    text = toy.entry(models["high"], batch.shape[1:])

    def answers() -> list[torch.Tensor]:
        from musubi.batch import collate

        entry = {name: torch.ones(shape) for name, shape in text.items()}
        conditions = toy.conditions(collate([entry], items=["a"], bucket=""))
        with torch.no_grad():
            return [toy.velocity(models[name], batch, torch.tensor([0.5]), conditions) for name in ("high", "low")]

    bare = answers()
    with both.attached(models):
        attached = answers()
        with both.switched_off():
            switched = answers()

    assert torch.equal(attached[0], bare[0])
    assert not torch.equal(attached[1], bare[1])
    assert all(torch.equal(one, other) for one, other in zip(switched, bare, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(answers(), bare, strict=True))


def test_they_have_an_effect_if_one_of_them_has() -> None:
    idle = {"high": adapters(), "low": adapters()}
    busy = {"high": adapters(), "low": grown(adapters(), by=0.1)}

    assert ExpertAdapters(idle, rates={}).zero_effect
    assert not ExpertAdapters(busy, rates={}).zero_effect


@pytest.mark.parametrize("limit", [None, 0.01])
def test_norms_are_limited_and_told_together(limit: float | None) -> None:
    both = ExpertAdapters({n: grown(adapters(max_norm=limit), by=0.5) for n in ("high", "low")}, rates={})

    norms = both.limit_norms()

    if limit is None:
        assert norms is None
    else:
        assert norms is not None
        assert norms.scaled == 2 * len(adapters().layers)
        assert norms.largest <= limit * 1.001
