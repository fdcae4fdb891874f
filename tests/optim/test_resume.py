"""For every optimiser that ships: what is saved is data alone, and three more steps are the same bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from musubi.core.kinds import KINDS
from musubi.optim.adafactor import Adafactor
from musubi.optim.custom import CustomOptimizer
from musubi.optim.external import AdamW8bit, Lion, Prodigy, ProdigyPlusScheduleFree, ScheduleFreeAdamW
from musubi.optim.optimizers import AdamW, Optimizer
from musubi.parameters import ParameterGroup
from tests.optim.toy import Toy

SPECS: dict[str, Optimizer] = {
    "adamw": AdamW(lr=0.01),
    "adamw fused": AdamW(lr=0.01, fused=True),
    "adamw separate": AdamW(lr=0.01, fused_backward=True),
    "adamw_8bit": AdamW8bit(lr=0.01),
    "adamw_8bit separate": AdamW8bit(lr=0.01, fused_backward=True),
    "adafactor": Adafactor(lr=0.01, beta1=0.9),
    "adafactor relative": Adafactor(relative_step=True, scale_parameter=True, fused_backward=True),
    "lion": Lion(lr=0.001),
    "prodigy": Prodigy(d0=1e-3, safeguard_warmup=True),
    "prodigy sliced": Prodigy(d0=1e-3, slice_p=11),
    "schedule_free_adamw": ScheduleFreeAdamW(lr=0.01, warmup_steps=4),
    "prodigy_plus_schedule_free": ProdigyPlusScheduleFree(d0=1e-3),
    "prodigy_plus_schedule_free alone": ProdigyPlusScheduleFree(d0=1e-3, use_schedulefree=False, split_groups=False),
    "prodigy_plus_schedule_free frozen": ProdigyPlusScheduleFree(d0=1e-3, prodigy_steps=4),
    "custom": CustomOptimizer(name="RAdam", lr=0.01),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", SPECS)
def test_training_goes_on_bit_for_bit_from_a_saved_state(name: str, dtype: torch.dtype) -> None:
    spec = SPECS[name]
    toy = Toy(spec, dtype=dtype)
    toy.take(0, 3)
    before = toy.values()

    again = toy.resumed(spec)
    toy.take(3, 3)
    again.take(3, 3)

    for straight, resumed, then in zip(toy.values(), again.values(), before, strict=True):
        assert torch.equal(straight, resumed)
        assert not torch.equal(straight, then)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", SPECS)
def test_a_state_comes_back_as_it_was(name: str, dtype: torch.dtype) -> None:
    toy = Toy(SPECS[name], dtype=dtype)
    toy.take(0, 2)

    again = toy.resumed(SPECS[name])

    for parameter, other in zip(toy.parameters, again.parameters, strict=True):
        mine, theirs = toy.optimizer.state[parameter], again.optimizer.state[other]
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            if isinstance(value, torch.Tensor):
                assert value.dtype == theirs[key].dtype, key
                assert torch.equal(value, theirs[key]), key
            else:
                assert value == theirs[key], key


def test_every_optimiser_that_a_file_can_name_is_tried() -> None:
    assert {spec.kind for spec in SPECS.values()} == {*KINDS["optimizer"], "custom"}


def test_a_state_fits_with_and_without_separate_steps() -> None:
    plain = Toy(AdamW(lr=0.01))
    plain.take(0, 3)

    separate = plain.resumed(AdamW(lr=0.01, fused_backward=True))
    plain.take(3, 3)
    separate.take(3, 3)

    assert all(torch.equal(mine, theirs) for mine, theirs in zip(plain.values(), separate.values(), strict=True))


@pytest.mark.parametrize("name", SPECS)
def test_the_state_is_as_large_as_plans_count_it(name: str) -> None:
    spec = SPECS[name]
    matrix = nn.Parameter(torch.randn(512, 512))
    optimizer = spec.build([ParameterGroup(name="unet", parameters=(matrix,))])
    matrix.grad = torch.randn(512, 512)
    optimizer.step()

    tensors = [value for value in optimizer.state[matrix].values() if isinstance(value, torch.Tensor)]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors) / matrix.numel()

    assert spec.state_bytes - 1 < size < spec.state_bytes + 0.1
