from __future__ import annotations

import torch
from torch import Tensor, nn

from musubi.memory.quant_linear import QuantLinear
from musubi.memory.streamable import SMALLEST, exclusive, state_of, streamable, threshold


class Opaque(Tensor):
    """A tensor whose numbers only a library's own code can move."""


def frozen(module: nn.Module) -> nn.Module:
    return module.requires_grad_(requires_grad=False)


def test_what_is_at_most_64_kib_stays_on_the_device() -> None:
    block = frozen(nn.Sequential(nn.Linear(512, 4096, bias=True), nn.Linear(128, 128), nn.LayerNorm(4096)))

    assert [tuple(tensor.shape) for tensor in streamable(block)] == [(4096, 512)]
    assert SMALLEST == 128 * 128 * 4


def test_a_toy_streams_as_a_real_model_does() -> None:
    toy, real = (frozen(nn.Sequential(nn.Linear(w, w), nn.Linear(w, 2 * w), nn.LayerNorm(w))) for w in (16, 1024))

    assert [t.ndim for t in streamable(toy)] == [t.ndim for t in streamable(real)] == [2, 2]
    assert threshold([]) == 0


def test_large_scales_stream_with_their_weights_and_biases_do_not() -> None:
    linear = frozen(QuantLinear.of(nn.Linear(4096, 1024)))
    names = {id(tensor): name for name, tensor in linear.named_parameters()}

    assert [names[id(tensor)] for tensor in streamable(linear)] == ["weight", "scale"]


def test_what_trains_streams_only_where_it_can_come_back() -> None:
    block = nn.Sequential(nn.Linear(256, 256), frozen(nn.Linear(256, 256)))

    assert list(streamable(block)) == [block[1].weight]
    assert list(streamable(block, trained=True)) == [block[0].weight, block[1].weight]


def test_tensors_of_libraries_stay() -> None:
    block = nn.Module()
    block.register_buffer("opaque", torch.randn(256, 256).as_subclass(Opaque))
    block.register_buffer("plain", torch.randn(256, 256))

    assert list(streamable(block)) == [block.get_buffer("plain")]


def test_the_meta_device_tells_the_same() -> None:
    with torch.device("meta"):
        block = frozen(nn.Linear(1024, 1024))

    assert [t.nbytes for t in streamable(block)] == [1024 * 1024 * 4]


def test_state_is_listed_module_by_module_and_once() -> None:
    inner = nn.BatchNorm1d(4)
    model = nn.Sequential(nn.Linear(4, 4), inner, inner)

    names = [name for name, _ in model.named_parameters()]
    assert len(state_of(model.modules())) == len(names) + 3
    assert [id(t) for t in state_of(model.modules())][:2] == [id(model[0].weight), id(model[0].bias)]


def test_what_is_used_twice_is_nobodys() -> None:
    one, other, third = (torch.ones(1) for _ in range(3))

    assert exclusive([[one, other], [other]], [third]) == [(one,), ()]
    assert exclusive([[one], [third]], [third]) == [(one,), ()]
