from __future__ import annotations

import pytest
import torch

from musubi.core.errors import ConfigError
from musubi.memory.device import named_device, usable_device


def test_a_device_need_not_be_there_to_be_named() -> None:
    assert named_device("cuda:7") == torch.device("cuda", 7)


def test_a_name_of_no_kind_of_device_is_refused_with_the_ones_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'cud' names no kind of device \(hint: .*'cuda'"):
        named_device("cud")


def test_a_device_that_this_machine_lacks_is_refused_before_it_is_used() -> None:
    assert usable_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match=r"'cuda:63' cannot be used"):
        usable_device("cuda:63")
