from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from musubi.networks.dora_layer import DoRALayer
from musubi.networks.lora import DoRA
from musubi.networks.rules import Sizes
from tests.networks.layer_cases import WIDTH, applied, base_of, inputs, trained


def _dora(members: list[nn.Linear]) -> DoRALayer:
    layer = trained(DoRA(rank=3, alpha=2), members)
    assert isinstance(layer, DoRALayer)
    return layer


def test_magnitudes_start_as_the_norms_of_the_rows_also_of_a_quantised_weight() -> None:
    class Quantised(nn.Linear):
        def dequantised(self) -> Tensor:
            return 2 * self.weight

    member = Quantised(WIDTH, 6).requires_grad_(requires_grad=False)

    layer = DoRA(rank=2).layer([member], sizes=Sizes(rank=2, alpha=2.0))

    assert isinstance(layer, DoRALayer)
    torch.testing.assert_close(layer.magnitude.detach(), 2 * member.weight.norm(dim=1))


def test_the_outputs_and_gradients_are_pefts() -> None:
    peft = pytest.importorskip("peft", reason="the other implementation of DoRA")
    (member,), x = base_of((24,)), inputs()
    layer = _dora([member])
    theirs = peft.tuners.lora.Linear(
        nn.Linear(WIDTH, 24), "default", peft.LoraConfig(use_dora=True), r=3, lora_alpha=2, use_dora=True
    )
    theirs.base_layer.load_state_dict(member.state_dict())
    names = {
        "down": theirs.lora_A["default"].weight,
        "up": theirs.lora_B["default"].weight,
        "magnitude": theirs.lora_magnitude_vector["default"].weight,
    }
    for name, parameter in names.items():
        parameter.data.copy_(layer.get_parameter(name).data)

    ours, other = applied(layer, [member], x), theirs(x)
    ours.square().sum().backward()
    other.square().sum().backward()

    torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-5)
    for name, parameter in names.items():
        torch.testing.assert_close(layer.get_parameter(name).grad, parameter.grad, rtol=1e-4, atol=1e-3)


def test_half_precision_does_not_round_away_what_a_magnitude_learned() -> None:
    (member,), x = base_of((24,)), inputs()
    layer = _dora([member])
    with torch.no_grad():
        layer.up.zero_()
        layer.magnitude.copy_(member.weight.norm(dim=1) * 1.001)
    output = torch.full((2, 5, 24), 1e-3, dtype=torch.bfloat16)
    member.bias.data.fill_(-1.0)  # W x is then 1.001, and what is added 1e-3 of it

    added = layer.change(member, x.bfloat16(), output, 0, 1.0) - output

    torch.testing.assert_close(added.float(), torch.full_like(x[..., :1], 1e-3).expand(2, 5, 24), rtol=0.02, atol=0)


def test_rows_of_zeros_stay_finite() -> None:
    (member,), x = base_of((24,)), inputs()
    layer = _dora([member])
    with torch.no_grad():
        member.weight[3].zero_()
        layer.up[3].zero_()
        layer.magnitude[3].zero_()

    assert applied(layer, [member], x).isfinite().all()
    assert layer.weights().merged(member.weight).isfinite().all()
