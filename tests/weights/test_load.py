from __future__ import annotations

import subprocess
import sys
import weakref
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from accelerate import init_empty_weights
from safetensors.torch import save_file
from torch import Tensor, nn

from musubi.core.errors import WeightsError
from musubi.keymap import KeyMap, Rename
from musubi.weights.checkpoint import Checkpoint, open_checkpoint
from musubi.weights.load import load_into

KEYS = KeyMap((Rename("attn.qkv", ("q", "k", "v")), Rename("time", "clock")))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(4, 6), nn.Linear(4, 2), nn.Linear(4, 2)
        self.clock = nn.Linear(4, 4)
        self.register_buffer("table", torch.linspace(0, 1, 5), persistent=False)
        self.register_buffer("count", torch.tensor(0))


def _empty() -> Model:
    with init_empty_weights():
        return Model()


def _tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = {"attn.qkv.weight": (10, 4), "attn.qkv.bias": (10,), "time.weight": (4, 4), "time.bias": (4,)}
    tensors = {name: torch.randn(size, generator=generator) for name, size in sizes.items()}
    return {**tensors, "count": torch.tensor(3)}


def _load(tensors: Mapping[str, Tensor], folder: Path, **options: object) -> Model:
    save_file(dict(tensors), folder / "model.safetensors")
    model = _empty()
    arguments = {"keys": KEYS, "device": "cpu", "dtype": torch.float32, **options}
    with open_checkpoint(folder / "model.safetensors") as checkpoint:
        load_into(model, checkpoint, **arguments)  # type: ignore[arg-type]
    return model


def test_rows_go_where_the_table_says(tmp_path: Path) -> None:
    tensors = _tensors()

    model = _load(tensors, tmp_path)

    assert torch.equal(torch.cat([model.q.weight, model.k.weight, model.v.weight]), tensors["attn.qkv.weight"])
    assert torch.equal(torch.cat([model.q.bias, model.k.bias, model.v.bias]), tensors["attn.qkv.bias"])
    assert torch.equal(model.clock.weight, tensors["time.weight"])
    assert model.get_buffer("count") == 3


def test_library_names_load_the_same(tmp_path: Path) -> None:
    first = _load(_tensors(), tmp_path)

    second = _load({name: value.contiguous() for name, value in first.state_dict().items()}, tmp_path)

    assert all(torch.equal(first.state_dict()[name], value) for name, value in second.state_dict().items())


def test_prefixes_are_stripped(tmp_path: Path) -> None:
    prefixed = {f"model.diffusion_model.{name}": value for name, value in _tensors().items()}

    assert torch.equal(_load(prefixed, tmp_path).clock.bias, _tensors()["time.bias"])


def test_parameters_take_the_asked_type_except_those_that_keep_float32(tmp_path: Path) -> None:
    model = _load(_tensors(), tmp_path, dtype=torch.bfloat16, keep_float32=(r"time\..*",))

    assert model.q.weight.dtype == torch.bfloat16
    assert model.clock.weight.dtype == torch.float32
    assert model.get_buffer("table").dtype == torch.float32
    assert torch.equal(model.get_buffer("table"), torch.linspace(0, 1, 5))
    assert model.get_buffer("count").dtype == torch.int64


def test_the_hook_sees_original_names_and_its_answer_is_stored(tmp_path: Path) -> None:
    seen: dict[str, tuple[int, ...]] = {}

    def double(name: str, tensor: Tensor) -> Tensor:
        seen[name] = tuple(tensor.shape)
        return tensor * 2

    model = _load(_tensors(), tmp_path, on_weight=double)

    assert seen == {name: tuple(value.shape) for name, value in _tensors().items()}
    assert torch.equal(model.k.weight, _tensors()["attn.qkv.weight"][6:8] * 2)


def test_the_hook_sees_fused_tensors_of_library_files_too(tmp_path: Path) -> None:
    library = {name: value.contiguous() for name, value in _load(_tensors(), tmp_path).state_dict().items()}
    seen: dict[str, Tensor] = {}

    def remember(name: str, tensor: Tensor) -> Tensor:
        seen[name] = tensor.clone()
        return tensor

    _load(library, tmp_path, on_weight=remember)

    assert torch.equal(seen["attn.qkv.weight"], _tensors()["attn.qkv.weight"])


def test_a_hook_may_store_several_tensors_in_other_types(tmp_path: Path) -> None:
    def quantise(name: str, tensor: Tensor) -> Tensor | Mapping[str, Tensor]:
        if not name.endswith("qkv.weight"):
            return tensor
        return {"weight": tensor.to(torch.float8_e4m3fn), "scale": tensor.abs().amax(1, keepdim=True)}

    model = _load(_tensors(), tmp_path, on_weight=quantise)

    assert model.q.weight.dtype == torch.float8_e4m3fn
    assert torch.equal(model.k.get_parameter("scale"), _tensors()["attn.qkv.weight"][6:8].abs().amax(1, keepdim=True))


def test_unknown_missing_and_misshaped_are_reported_together(tmp_path: Path) -> None:
    tensors = _tensors()
    del tensors["time.weight"]
    tensors["time.bias"] = torch.zeros(5)
    tensors["surplus.weight"] = torch.zeros(1)

    with pytest.raises(WeightsError, match=r"model\.safetensors") as caught:
        _load(tensors, tmp_path)

    found = {issue.path: issue.message for issue in caught.value.issues}
    assert found == {
        "surplus.weight": "is not known to the model",
        "time.bias": "has shape 5, the model's is 4",
        "clock.weight": "is missing from the file",
    }


def test_many_problems_of_one_kind_are_counted(tmp_path: Path) -> None:
    tensors = {**_tensors(), **{f"surplus.{i}": torch.zeros(1) for i in range(40)}}

    with pytest.raises(WeightsError, match="and 28 more that are not known to the model"):
        _load(tensors, tmp_path)


def test_ignored_names_do_not_count(tmp_path: Path) -> None:
    model = _load({**_tensors(), "surplus.weight": torch.zeros(1)}, tmp_path, ignore=(r"surplus\..*",))

    assert not model.clock.weight.is_meta


@pytest.mark.parametrize("name", ["scaled_fp8", "attn.qkv.scale_weight", "attn.qkv.weight_scale", "time.comfy_quant"])
def test_a_file_that_is_quantised_already_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="already quantised") as caught:
        _load({**_tensors(), f"model.diffusion_model.{name}": torch.ones(1)}, tmp_path)

    assert "model.safetensors" in str(caught.value)
    assert "bf16" in caught.value.issues[0].hint


def test_parameters_have_memory_of_their_own(tmp_path: Path) -> None:
    model = _load(_tensors(), tmp_path)

    sizes = {p.untyped_storage().nbytes() == p.nbytes for p in model.parameters()}
    model.q.weight.data.zero_()

    assert sizes == {True}
    with open_checkpoint(tmp_path / "model.safetensors") as checkpoint:
        assert torch.equal(checkpoint.read("attn.qkv.weight"), _tensors()["attn.qkv.weight"])


def test_only_one_tensor_of_the_file_is_alive_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
    most = 0
    read = Checkpoint.read

    def watched(self: Checkpoint, name: str) -> Tensor:
        nonlocal most
        tensor = read(self, name)
        alive.add(tensor)
        most = max(most, len(alive))
        return tensor

    monkeypatch.setattr(Checkpoint, "read", watched)
    _load(_tensors(), tmp_path, dtype=torch.bfloat16)

    assert most <= 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells mapped files from a process's own memory")
def test_loading_does_not_hold_the_model_twice(tmp_path: Path) -> None:
    """A process loads 48 MiB of bfloat16 from a 96 MiB float32 file; its own memory grows by little more."""
    program = """
import sys, psutil, torch
from pathlib import Path
from accelerate import init_empty_weights
from safetensors.torch import save_file
from torch import nn
from musubi.keymap import KeyMap
from musubi.weights.checkpoint import open_checkpoint
from musubi.weights.load import load_into
torch.set_num_threads(1)
path = Path(sys.argv[1])
with init_empty_weights():
    model = nn.ModuleList(nn.Linear(1024, 1024, bias=False) for _ in range(24))
private = lambda: (i := psutil.Process().memory_info()).rss - i.shared
before = private()
with open_checkpoint(path) as checkpoint:
    load_into(model, checkpoint, keys=KeyMap(()), device="cpu", dtype=torch.bfloat16)
print((private() - before) / 2**20)
"""
    save_file({f"{i}.weight": torch.full((1024, 1024), float(i)) for i in range(24)}, tmp_path / "m.safetensors")

    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "m.safetensors")], capture_output=True, text=True, check=True
    )

    assert 46 < float(done.stdout) < 75
