"""The parts that only a CUDA device has: pinning in place, the copy stream, staging where pinning is refused."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch

from musubi import AdamW
from musubi.memory.arena import Arena, CudaRegistrar, Registrar
from musubi.memory.ring import streaming
from musubi.optim.fused import FusedBackward
from musubi.parameters import ParameterGroup
from tests.memory import tiny
from tests.memory.locks import Locks

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
STEPS = 4


def history(*, swapped: bool, registrar: Registrar | None = None) -> list[torch.Tensor]:
    """Train all weights of the tiny model for some steps and return pictures and weights, on the host."""
    device = torch.device("cuda")
    model = tiny.transformer().requires_grad_()
    told: list[torch.Tensor] = []
    with ExitStack() as stack:
        if swapped:
            blocks = list(model.get_submodule("blocks").children())
            stack.enter_context(streaming(model, blocks, device=device, slots=3, write_back=True, registrar=registrar))
        else:
            model.to(device)
        group = ParameterGroup(name="model", parameters=tuple(model.parameters()))
        optimizer = AdamW(lr=1e-3, fused_backward=True).build((group,))
        stack.enter_context(FusedBackward(optimizer, max_grad_norm=None))
        for step in range(STEPS):
            latents, time, text = (tensor.to(device) for tensor in tiny.inputs(step))
            with torch.no_grad():
                told.append(model(latents, time, text, return_dict=False)[0].cpu())
            model(latents, time, text, return_dict=False)[0].square().mean().backward()
            told += [tensor.detach().cpu() for tensor in model.state_dict().values()]
    return told


@pytest.mark.parametrize("room", [None, 0], ids=["pinned", "staged"])
def test_a_swapped_model_learns_what_a_resident_one_learns(room: int | None) -> None:
    expected = history(swapped=False)

    found = history(swapped=True, registrar=None if room is None else Locks(room))

    # Attention adds up in no fixed order on a device, so runs differ by rounding.
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_memory_is_pinned_where_it_is_and_let_go_again() -> None:
    arena = Arena([[torch.randn(1 << 20)] for _ in range(3)], registrar=CudaRegistrar(torch.device("cuda")))
    flat = arena.masters[0].flat

    assert arena.pinned
    assert flat.is_pinned()
    arena.close()
    assert not flat.is_pinned()


def test_a_refused_pin_leaves_no_error_behind() -> None:
    registrar = CudaRegistrar(torch.device("cuda"))

    assert not registrar.register(0, 1 << 20)
    assert float(torch.ones(4, device="cuda").sum()) == 4
