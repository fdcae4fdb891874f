from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from musubi.embedding.sinusoid import Sinusoid


def test_the_frequencies_fall_from_one_by_equal_factors() -> None:
    found = Sinusoid().frequencies(torch.device("cpu"))
    waves = Sinusoid()(torch.tensor([0.0, 250.0]))

    assert_close(found.double(), 10000 ** -(torch.arange(128) / 128).double(), rtol=1e-6, atol=0)
    assert torch.equal(waves[0], torch.cat([torch.ones(128), torch.zeros(128)]))
    assert_close(waves[1, :128].square() + waves[1, 128:].square(), torch.ones(128))


def test_the_frequencies_need_no_float64_of_the_device() -> None:
    device, seen = torch.device("meta"), set[torch.dtype]()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            seen.update(t.dtype for t in (result,) if isinstance(t, Tensor) and t.device == device)
            return result

    with Watch():  # type: ignore[no-untyped-call]
        found = Sinusoid().frequencies(device)

    assert found.device == device
    assert seen == {torch.float32}
