from __future__ import annotations

import fractions
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from musubi.core.errors import WeightsError
from musubi.weights.pickled import PickledFile


@pytest.mark.parametrize("wrapper", [(), ("module",), ("state_dict",), ("model_state_dict",), ("state_dict", "module")])
def test_a_state_dict_is_found_in_its_wrappers(wrapper: tuple[str, ...], tmp_path: Path) -> None:
    content: object = OrderedDict(a=torch.ones(2, 3), epoch=4)
    for name in reversed(wrapper):
        content = {name: content, "step": 7}
    torch.save(content, tmp_path / "model.pth")

    file = PickledFile(tmp_path / "model.pth")

    assert file.names() == ("a",)
    assert file.shape("a") == (2, 3)
    assert file.dtype("a") == torch.float32
    assert torch.equal(file.read("a"), torch.ones(2, 3))


def test_the_old_format_is_read_too(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(8)}, tmp_path / "model.pt", _use_new_zipfile_serialization=False)

    assert torch.equal(PickledFile(tmp_path / "model.pt").read("a"), torch.arange(8))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_could_run_code_is_refused_and_says_why(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"a": torch.ones(1), "b": fractions.Fraction(1, 2)}, path, _use_new_zipfile_serialization=zipped)

    with pytest.raises(WeightsError, match="could run code") as caught:
        PickledFile(path)

    assert "evil.pth" in str(caught.value)
    assert "fractions.Fraction" in str(caught.value)
    assert "safetensors" in caught.value.issues[0].hint


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "evil.bin").write_bytes(pickle.dumps(_Trap(tmp_path / "ran")))

    with pytest.raises(WeightsError, match=r"evil\.bin"):
        PickledFile(tmp_path / "evil.bin")

    assert not (tmp_path / "ran").exists()


class _Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_file_that_is_cut_short_is_named(share: float, tmp_path: Path) -> None:
    path = tmp_path / "half.pth"
    torch.save({"a": torch.ones(100)}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])

    with pytest.raises(WeightsError, match=r"half\.pth"):
        PickledFile(path)


@pytest.mark.parametrize("content", [{}, [torch.ones(1)], {"module": {"epoch": 3}}, torch.ones(2)])
def test_a_file_without_named_tensors_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.pth")

    with pytest.raises(WeightsError, match="no named tensors"):
        PickledFile(tmp_path / "odd.pth")
