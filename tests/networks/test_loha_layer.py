from __future__ import annotations

import torch

from musubi.networks.loha import LoHa
from musubi.networks.loha_layer import LoHaLayer
from tests.networks.layer_cases import base_of, inputs, trained


def test_gradients_are_autograds_through_the_dense_product() -> None:
    members, x = base_of((24,)), inputs().double().requires_grad_()
    layer = trained(LoHa(rank=3, alpha=2), members).double()

    assert torch.autograd.gradcheck(lambda value, *_: layer.delta(value), (x, *layer.parameters()))


def test_the_initial_draw_is_lycoris() -> None:
    layer = LoHaLayer(400, (300,), rank=8, alpha=8.0)
    layer.draw(torch.Generator().manual_seed(0))

    deviations = {name: round(float(p.detach().std()), 1) for name, p in layer.named_parameters()}

    assert deviations == {"hada_w1_a": 0.1, "hada_w1_b": 1.0, "hada_w2_a": 0.0, "hada_w2_b": 1.0}


def test_the_delta_is_not_kept_for_backward() -> None:
    layer, x = trained(LoHa(rank=2), base_of((24,))), inputs()
    saved: list[torch.Size] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        layer.delta(x)

    assert (24, x.shape[-1]) not in {tuple(shape) for shape in saved}
    assert saved
