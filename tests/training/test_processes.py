from __future__ import annotations

import pytest
import torch

from musubi import ConfigError
from musubi.training.processes import Processes


def test_without_a_launcher_there_is_one_process_that_leads() -> None:
    processes = Processes("cpu")

    assert (processes.rank, processes.count, processes.leads) == (0, 1, True)
    assert processes.device == torch.device("cpu")


def test_alone_an_average_changes_nothing() -> None:
    parameter, idle = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.tensor([1.0, 2.0])

    numbers = Processes("cpu").average_gradients([parameter, idle], [0.5, 1.0])

    assert (parameter.grad.tolist(), idle.grad, numbers) == ([1.0, 2.0], None, [0.5, 1.0])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="device: 'cuda' cannot be used"):
        Processes("cuda")
