from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from musubi.core.errors import ConfigError
from musubi.weights.checkpoint import Checkpoint
from musubi.weights.safetensor import SafetensorsFile
from musubi.weights.writing import Shape, streamed

TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.int64, torch.uint8, torch.bool)


def _tensors(seed: int, shapes: list[tuple[int, ...]]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randint(0, 2, shape, generator=generator).float() for shape in shapes]
    return {f"tensor.{i}": t.to(TYPES[i % len(TYPES)]) for i, t in enumerate(made)}


def _shapes(tensors: dict[str, torch.Tensor]) -> dict[str, Shape]:
    return {name: Shape(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


@settings(max_examples=20, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 4), max_size=3).map(tuple), min_size=1, max_size=9),
    order=st.randoms(use_true_random=False),
)
def test_what_is_put_in_any_order_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[tuple[int, ...]], order: object
) -> None:
    path = tmp_path_factory.mktemp("written") / "file.safetensors"
    tensors = _tensors(3, shapes)
    names = list(tensors)
    order.shuffle(names)  # type: ignore[attr-defined]

    with streamed(path, _shapes(tensors), {"format": "pt", "title": "Grüße"}) as writer:
        for name in names:
            writer.put(name, tensors[name])

    theirs, ours = load_file(path), Checkpoint([SafetensorsFile(path)])
    assert ours.names() == tuple(tensors)
    for name, tensor in tensors.items():
        for found in (theirs[name], ours.read(name)):
            assert found.dtype == tensor.dtype
            assert torch.equal(found.float(), tensor.float())
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt", "title": "Grüße"}


def test_tensors_that_are_views_are_written_as_they_look(tmp_path: Path) -> None:
    tensor = torch.arange(12.0).reshape(3, 4).T

    with streamed(tmp_path / "a.safetensors", {"t": Shape(torch.float32, (4, 3))}) as writer:
        writer.put("t", tensor)

    assert torch.equal(load_file(tmp_path / "a.safetensors")["t"], tensor)


def test_a_file_that_was_not_finished_does_not_appear(tmp_path: Path) -> None:
    shapes = {"a": Shape(torch.float32, (2,)), "b": Shape(torch.float32, (2,))}

    never = pytest.raises(AssertionError, match="1 tensors were never written, the first is b")
    with never, streamed(tmp_path / "a.safetensors", shapes) as writer:
        writer.put("a", torch.zeros(2))

    assert list(tmp_path.iterdir()) == []


def test_what_was_not_announced_is_not_written(tmp_path: Path) -> None:
    other = pytest.raises(AssertionError, match="a is not as announced")
    with other, streamed(tmp_path / "a.safetensors", {"a": Shape(torch.float32, (2,))}) as writer:
        writer.put("a", torch.zeros(3))


def test_the_data_begin_where_readers_may_map_them(tmp_path: Path) -> None:
    with streamed(tmp_path / "a.safetensors", {"a": Shape(torch.float64, (2,))}, {"x": "y"}) as writer:
        writer.put("a", torch.zeros(2, dtype=torch.float64))

    content = (tmp_path / "a.safetensors").read_bytes()
    assert (8 + int.from_bytes(content[:8], "little")) % 64 == 0


@pytest.mark.parametrize(
    ("name", "dtype", "message"),
    [
        ("a.pt", torch.float32, r"is no \.safetensors name"),
        ("a.safetensors", torch.complex64, "which the format lacks"),
    ],
)
def test_what_the_format_lacks_is_refused(name: str, dtype: torch.dtype, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message), streamed(tmp_path / name, {"a": Shape(dtype, (1,))}):
        pass

    assert list(tmp_path.iterdir()) == []
