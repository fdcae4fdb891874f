from __future__ import annotations

import torch
from torch import nn

from musubi.architecture import Layout
from musubi.memory.on_host import ComputeOnHost, TablesOnHost
from musubi.memory.policy import Phase, Placement, loading_device, placed

CPU, ELSEWHERE = torch.device("cpu"), torch.device("meta")
LAYOUT = Layout(blocks=(), adapters=())


class Reader(nn.Module):
    """Look words up and mix them."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.mix = nn.Embedding(50, 8), nn.Linear(8, 8)


def placement(device: torch.device) -> Placement:
    return Placement(title="a reader", layout=LAYOUT, device=device, dtype=torch.float32, training=False)


def test_rows_go_to_the_device_and_the_table_stays() -> None:
    reader, policy = Reader(), TablesOnHost(tables=("words",))

    with placed(reader, [policy], placement(ELSEWHERE)):
        rows = reader.words(torch.tensor([3, 1]))
        assert reader.words.weight.device == CPU
        assert (rows.device, rows.shape) == (ELSEWHERE, (2, 8))


def test_whoever_moves_the_model_meanwhile_leaves_the_table_where_it_is() -> None:
    reader, policy = Reader(), TablesOnHost(tables=("words",))
    table = reader.words.weight

    with placed(reader, [policy], placement(CPU)):
        assert {name for name, _ in reader.named_parameters()} == {"mix.weight", "mix.bias"}

    assert reader.words.weight is table
    assert {name for name, _ in reader.named_parameters()} == {"words.weight", "mix.weight", "mix.bias"}
    assert policy.phase < Phase.SWAP, "a swap moves what it sees"


def test_rows_are_the_same_bits_and_nothing_stays_attached() -> None:
    reader = Reader()
    ids = torch.tensor([[3, 1, 1], [49, 0, 7]])
    expected = reader.words(ids)

    with placed(reader, [TablesOnHost(tables=("words",))], placement(CPU)):
        assert torch.equal(reader.words(ids), expected)

    assert not reader.words._forward_hooks
    assert not reader.words._forward_pre_hooks


def test_a_component_on_the_host_is_loaded_there_and_moved_by_nobody() -> None:
    reader, policies = Reader(), [ComputeOnHost()]

    assert loading_device(policies, ELSEWHERE) == CPU
    with placed(reader, policies, placement(ELSEWHERE)):
        assert {parameter.device for parameter in reader.parameters()} == {CPU}
