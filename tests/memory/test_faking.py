from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from musubi.memory.faking import as_on, counted, faked
from musubi.memory.formats import FP8, Int8
from musubi.memory.quant_linear import QuantLinear


def test_a_model_of_any_size_takes_no_memory() -> None:
    with torch.device("meta"):
        model = nn.Linear(1 << 20, 1 << 20, bias=False)

    with faked(model, like="cpu"):
        result = model(torch.empty(2, 1 << 20))

    assert result.shape == (2, 1 << 20)
    assert result.device.type == "cpu"


def test_parameters_are_left_frozen_or_not_as_they_were_and_may_be_faked_again() -> None:
    with torch.device("meta"):
        model = nn.Linear(4, 4).requires_grad_(requires_grad=False)

    for _ in range(2):
        with faked(model, like="cpu"):
            assert not model.weight.requires_grad
            assert model(torch.empty(1, 4)).shape == (1, 4)


@pytest.mark.parametrize(("like", "kind"), [("cpu", torch.bfloat16), ("cuda", torch.float32)])
def test_autocast_returns_what_it_does_on_the_device(like: str, kind: torch.dtype) -> None:
    with faked(nn.Module(), like=like), counted([], like=like), torch.autocast("cpu", torch.bfloat16):
        normal = functional.layer_norm(torch.empty(2, 8, dtype=torch.bfloat16), (8,))

    assert normal.dtype == kind


def test_the_normalisation_of_an_accelerator_keeps_its_input_and_a_number_for_each_row() -> None:
    with faked(nn.Module(), like="cuda"):
        x = torch.empty(16, 64, requires_grad=True)
        with counted([x], like="cuda") as live:
            result = functional.rms_norm(x, (64,))

    assert live.take().end == result.nbytes + 16 * 4


@pytest.mark.parametrize("format", [FP8(), Int8()])
def test_a_matrix_comes_back_in_two_copies_on_an_accelerator_and_in_one_on_a_cpu(format: FP8 | Int8) -> None:
    peaks: dict[str, int] = {}
    for like in ("cpu", "cuda"):
        with torch.device("meta"):
            model = QuantLinear(128, 64, bias=False, format=format, dtype=torch.bfloat16)
        with faked(model, like=like):
            x = torch.empty(1, 128, dtype=torch.bfloat16)
            with counted([x, *model.parameters()], like=like) as live:
                model(x)
        peaks[like] = live.take().peak

    matrix = 64 * 128 * 2
    assert matrix <= peaks["cpu"] < 1.2 * matrix
    assert 2 * matrix <= peaks["cuda"] < 2.2 * matrix


def test_a_forward_that_backward_calls_again_is_on_the_device_too() -> None:
    from torch.utils.checkpoint import checkpoint

    seen: list[torch.dtype] = []

    def forward(x: torch.Tensor) -> torch.Tensor:
        normal = functional.layer_norm(x, (8,))
        seen.append(normal.dtype)
        return normal.exp()

    with faked(nn.Module(), like="cuda"):
        x = torch.empty(2, 8, dtype=torch.bfloat16, requires_grad=True)
        with counted([x], like="cuda"):
            with torch.autocast("cpu", torch.bfloat16):
                result = checkpoint(as_on("cuda")(forward), x, use_reentrant=False)
            torch.autograd.backward([result.sum()])

    assert seen == [torch.float32, torch.float32]
