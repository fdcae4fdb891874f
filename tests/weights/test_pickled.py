from __future__ import annotations

import fractions
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor

from musubi.core.errors import WeightsError
from musubi.weights import pickled
from musubi.weights.checkpoint import Checkpoint
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
    assert torch.equal(_read(file), torch.ones(2, 3))


def test_the_old_format_is_read_too(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(8)}, tmp_path / "model.pt", _use_new_zipfile_serialization=False)

    assert torch.equal(_read(PickledFile(tmp_path / "model.pt")), torch.arange(8))


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


def test_rows_of_a_turned_tensor_are_copied_in_another_type(tmp_path: Path) -> None:
    turned = torch.arange(12.0).view(3, 4).T
    torch.save({"a": turned}, tmp_path / "model.pth")
    target = torch.empty(2, 3, dtype=torch.bfloat16)

    PickledFile(tmp_path / "model.pth").copy("a", target, start=1)

    assert torch.equal(target, turned[1:3].bfloat16())


@pytest.mark.parametrize("zipped", [True, False])
def test_a_map_that_is_made_anew_holds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, zipped: bool
) -> None:
    monkeypatch.setattr(pickled, "MAPPED", 100)
    monkeypatch.setattr(pickled, "PER_TENSOR", 1)
    tensors = {str(i): torch.full((8,), float(i)) for i in range(20)}
    torch.save(tensors, tmp_path / "model.pth", _use_new_zipfile_serialization=zipped)

    checkpoint = Checkpoint([PickledFile(tmp_path / "model.pth")])

    assert all(torch.equal(checkpoint.read(name), tensor) for name, tensor in tensors.items())


def _read(file: PickledFile) -> Tensor:
    return Checkpoint([file]).read("a")
