from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from musubi.core.errors import WeightsError
from musubi.weights.checkpoint import Checkpoint
from musubi.weights.safetensor import SafetensorsFile

TYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8),
    *(torch.bool, torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz),
]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_type_is_read_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    tensor = torch.tensor([[0, 1], [2, 3], [1, 0]]).to(dtype)
    save_file({"x": tensor}, tmp_path / "x.safetensors")

    file = SafetensorsFile(tmp_path / "x.safetensors")

    assert file.dtype("x") == dtype
    assert file.shape("x") == (3, 2)
    assert torch.equal(_read(file).view(torch.uint8), tensor.view(torch.uint8))


def test_metadata_is_not_a_tensor(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors", metadata={"wan.num_heads": "2"})

    file = SafetensorsFile(tmp_path / "x.safetensors")

    assert file.metadata == {"wan.num_heads": "2"}
    assert file.names() == ("x",)


def test_a_type_that_torch_lacks_is_named(tmp_path: Path) -> None:
    header = json.dumps({"x": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(3))

    with pytest.raises(WeightsError, match=r"x\.safetensors"):
        SafetensorsFile(path).dtype("x")


def test_a_file_that_shrank_after_it_was_opened_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"x": torch.zeros(64)}, path)
    file = SafetensorsFile(path)
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(WeightsError, match=r"x\.safetensors: cannot be read"):
        _read(file)


def test_a_header_of_any_length_is_read(tmp_path: Path) -> None:
    for padding in range(8):
        header = json.dumps({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode() + b" " * padding
        path = tmp_path / f"{padding}.safetensors"
        path.write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<2f", 1.5, -2.0))

        assert _read(SafetensorsFile(path)).tolist() == [1.5, -2.0]


def test_writing_to_a_tensor_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"x": torch.zeros(64)}, path)
    before = path.read_bytes()

    _read(SafetensorsFile(path)).fill_(1.0)

    assert path.read_bytes() == before


def test_an_empty_tensor_is_read(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(0, 3)}, tmp_path / "x.safetensors")

    assert _read(SafetensorsFile(tmp_path / "x.safetensors")).shape == (0, 3)


@pytest.mark.parametrize("keep", [0, 4, 8, 40, -1], ids=lambda keep: f"first {keep} bytes")
def test_a_file_that_is_cut_short_is_named(keep: int, tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_file({"x": torch.zeros(64)}, path)
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(WeightsError, match=r"half\.safetensors: cannot be read"):
        SafetensorsFile(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"<!doctype html><html>not found</html>", "web page"),
        (b"PK\x03\x04 and the rest of an archive", "wrong ending"),
        (struct.pack("<Q", 4) + b"\xff\xfe\x00\x01", "header is not readable"),
    ],
)
def test_a_file_that_is_something_else_is_recognised(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)

    with pytest.raises(WeightsError, match=message):
        SafetensorsFile(path)


@pytest.mark.parametrize(
    ("entry", "metadata"),
    [
        ({"shape": [-2, -2]}, {}),
        ({"shape": [2.0, 2]}, {}),
        ({"data_offsets": [0.0, 16.0]}, {}),
        ({"shape": [True, 4]}, {}),
        ({}, [1]),
        ({}, {"told": 1}),
    ],
    ids=str,
)
def test_a_header_of_other_values_is_damaged(entry: dict[str, object], metadata: object, tmp_path: Path) -> None:
    tensor = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16], **entry}
    header = json.dumps({"__metadata__": metadata, "x": tensor}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))

    with pytest.raises(WeightsError, match="download it again"):
        SafetensorsFile(path)


def test_more_rows_than_there_are_are_refused(tmp_path: Path) -> None:
    save_file({"x": torch.ones(6, 4), "y": torch.ones(6, 4)}, tmp_path / "x.safetensors")

    with pytest.raises(WeightsError, match="x has fewer rows"):
        SafetensorsFile(tmp_path / "x.safetensors").copy("x", torch.zeros(2, 4), start=5)


def test_rows_come_from_where_they_are_asked_for(tmp_path: Path) -> None:
    tensor = torch.arange(24.0).view(6, 4)
    save_file({"before": torch.ones(3), "x": tensor}, tmp_path / "x.safetensors")
    target = torch.zeros(2, 4)

    SafetensorsFile(tmp_path / "x.safetensors").copy("x", target, start=3)

    assert torch.equal(target, tensor[3:5])


def test_a_type_is_converted_piece_by_piece_on_the_way(tmp_path: Path) -> None:
    tensor = torch.randn(1100, 1000, generator=torch.Generator().manual_seed(0))
    save_file({"x": tensor}, tmp_path / "x.safetensors")
    target = torch.empty(1099, 1000, dtype=torch.bfloat16)

    SafetensorsFile(tmp_path / "x.safetensors").copy("x", target, start=1)

    assert torch.equal(target, tensor[1:].bfloat16())


def _read(file: SafetensorsFile) -> Tensor:
    return Checkpoint([file]).read("x")
