"""Every kind of layer over a group of Linears is the dense change of the one matrix that they are in the checkpoint."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from musubi.networks.lora import LoRA
from musubi.networks.network import AdapterNetwork
from musubi.networks.rules import Sizes
from tests.networks.layer_cases import NAMES, NETWORKS, ROWS, applied, base_of, inputs, trained

DROPPING = (
    *(network.replace(**{kind: 0.5}) for network in NETWORKS for kind in ("rank_dropout", "module_dropout")),
    *(network.replace(dropout=0.5) for network in NETWORKS if isinstance(network, LoRA)),
)
each_network = pytest.mark.parametrize("network", NETWORKS, ids=NAMES)


@pytest.mark.parametrize("rows", ROWS, ids=str)
@each_network
def test_a_layer_is_its_weights_merged_into_the_fused_matrix(network: AdapterNetwork, rows: tuple[int, ...]) -> None:
    members, x = base_of(rows), inputs()
    layer = trained(network, members)
    weight, bias = torch.cat([m.weight for m in members]), torch.cat([m.bias for m in members])

    for strength in (1.0, 0.4):
        merged = layer.weights().merged(weight, strength)
        torch.testing.assert_close(
            applied(layer, members, x, strength), functional.linear(x, merged, bias), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("same_input", [True, False])
@pytest.mark.parametrize("rows", ROWS[1:], ids=str)
@each_network
def test_gradients_over_a_group_are_those_over_the_fused_matrix(
    network: AdapterNetwork, rows: tuple[int, ...], *, same_input: bool
) -> None:
    split, fused, x = base_of(rows), base_of((sum(rows),)), inputs().requires_grad_()
    over_parts, over_one = trained(network, split), trained(network, fused)
    target = torch.randn(2, 5, sum(rows), generator=torch.Generator().manual_seed(3))
    seen = [x if same_input else x.view_as(x) for _ in split]

    outputs = [over_parts.change(m, own, m(own), i, 1.0) for i, (m, own) in enumerate(zip(split, seen, strict=True))]
    (torch.cat(outputs, dim=-1) * target).sum().backward()
    by_parts, x.grad = x.grad, None
    (applied(over_one, fused, x) * target).sum().backward()

    assert by_parts is not None
    torch.testing.assert_close(by_parts, x.grad, rtol=1e-4, atol=1e-5)
    for (name, one), other in zip(over_parts.named_parameters(), over_one.parameters(), strict=True):
        assert one.grad is not None, name
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-4)


@each_network
def test_a_fresh_layer_has_no_effect_and_a_trained_one_has(network: AdapterNetwork) -> None:
    members, x = base_of((24,)), inputs()
    fresh = network.layer(members, sizes=Sizes(rank=network.rank, alpha=2.0))
    fresh.draw(torch.Generator().manual_seed(0))

    assert fresh.has_no_effect()
    assert torch.equal(applied(fresh, members, x), members[0](x))
    assert not trained(network, members).has_no_effect()


@each_network
def test_norms_are_those_of_the_dense_delta(network: AdapterNetwork) -> None:
    layer = trained(network, base_of((24,)))
    before = layer.weights().delta().norm()

    torch.testing.assert_close(layer.norm().detach(), before, rtol=1e-4, atol=1e-5)
    layer.shrink(0.5)
    torch.testing.assert_close(layer.weights().delta().norm(), before / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", ROWS[:2], ids=str)
@pytest.mark.parametrize("network", DROPPING, ids=repr)
def test_a_block_computed_again_in_backward_drops_the_same(network: AdapterNetwork, rows: tuple[int, ...]) -> None:
    members = base_of(rows)
    layer = trained(network, members).train()

    def gradients(*, again: bool, seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        x = inputs().requires_grad_()
        found = checkpoint(applied, layer, members, x, use_reentrant=False) if again else applied(layer, members, x)
        return list(torch.autograd.grad(found.square().sum(), [x, *layer.parameters()], materialize_grads=True))

    for seed in range(4):
        for once, twice in zip(gradients(again=False, seed=seed), gradients(again=True, seed=seed), strict=True):
            torch.testing.assert_close(once, twice)


@each_network
def test_a_layer_leaves_the_members_and_the_input_alone(network: AdapterNetwork) -> None:
    members, x = base_of((8, 8, 8)), inputs()
    layer, before = trained(network, members), x.clone()
    outputs = [member(x) for member in members]
    kept = [output.clone() for output in outputs]

    for part, (member, output) in enumerate(zip(members, outputs, strict=True)):
        layer.change(member, x, output, part, 1.0)

    assert torch.equal(x, before)
    assert all(torch.equal(one, other) for one, other in zip(outputs, kept, strict=True))


@each_network
def test_a_linear_without_bias_is_changed_as_one_whose_bias_is_zero(network: AdapterNetwork) -> None:
    (whole,), x = base_of((24,)), inputs()
    bare = nn.Linear(whole.in_features, 24, bias=False).requires_grad_(requires_grad=False)
    bare.weight = whole.weight
    nn.init.zeros_(whole.bias)
    layer = trained(network, [whole])

    torch.testing.assert_close(applied(layer, [bare], x), applied(layer, [whole], x))
