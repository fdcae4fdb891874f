from __future__ import annotations

import json
import subprocess
import sys
import weakref
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest
import torch
from accelerate import init_empty_weights
from safetensors.torch import save_file
from torch import Tensor, nn

from musubi.core.errors import WeightsError
from musubi.keymap import KeyMap, Rename
from musubi.weights.checkpoint import open_checkpoint
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


def test_parameters_have_memory_of_their_own(tmp_path: Path) -> None:
    model = _load(_tensors(), tmp_path)

    sizes = {p.untyped_storage().nbytes() == p.nbytes for p in model.parameters()}
    model.q.weight.data.zero_()

    assert sizes == {True}
    with open_checkpoint(tmp_path / "model.safetensors") as checkpoint:
        assert torch.equal(checkpoint.read("attn.qkv.weight"), _tensors()["attn.qkv.weight"])


def test_only_one_tensor_of_the_file_is_alive_at_a_time(tmp_path: Path) -> None:
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
    most = 0

    def watch(_: str, tensor: Tensor) -> Tensor:
        nonlocal most
        alive.add(tensor)
        most = max(most, len(alive))
        return tensor * 2

    _load(_tensors(), tmp_path, dtype=torch.bfloat16, on_weight=watch)

    assert most <= 2


@pytest.mark.parametrize("layout", ["file", "shards", "index", "folder", "pickled", "old pickled"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_layout_loads_the_same(layout: str, dtype: torch.dtype, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    plain = _load(_tensors(), tmp_path / "plain", dtype=dtype)
    model = _empty()

    with open_checkpoint(_written(_tensors(), tmp_path, layout)) as checkpoint:
        load_into(model, checkpoint, keys=KEYS, device="cpu", dtype=dtype)

    assert all(torch.equal(tensor, plain.state_dict()[name]) for name, tensor in model.state_dict().items())


def _written(tensors: Mapping[str, Tensor], folder: Path, layout: str) -> Path:
    if layout == "file":
        save_file(dict(tensors), folder / "m.safetensors")
        return folder / "m.safetensors"
    if "pickled" in layout:
        torch.save({"module": dict(tensors)}, folder / "m.pth", _use_new_zipfile_serialization=layout == "pickled")
        return folder / "m.pth"
    shards = [f"m-{i + 1:05d}-of-00003.safetensors" for i in range(3)]
    for i, shard in enumerate(shards):
        save_file(dict(list(tensors.items())[i::3]), folder / shard)
    places = {name: shards[i % 3] for i, name in enumerate(tensors)}
    (folder / "m.safetensors.index.json").write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    return {"shards": folder / shards[0], "index": folder / "m.safetensors.index.json", "folder": folder}[layout]


FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.mark.parametrize("stored", [*FLOATS, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz], ids=str)
@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("hooked", [True, False], ids=["with a hook", "without"])
def test_every_type_of_numbers_becomes_the_asked_one(
    stored: torch.dtype, wanted: torch.dtype, tmp_path: Path, *, hooked: bool
) -> None:
    tensors = {n: t.to(stored) if t.is_floating_point() else t for n, t in _tensors().items()}

    model = _load(tensors, tmp_path, dtype=wanted, on_weight=(lambda _, tensor: tensor) if hooked else None)

    weight = torch.cat([model.q.weight, model.k.weight, model.v.weight])
    assert torch.equal(weight, tensors["attn.qkv.weight"].to(wanted))
    assert model.get_buffer("count") == 3


def test_the_order_of_the_files_makes_no_difference(tmp_path: Path) -> None:
    _written(_tensors(), tmp_path, "shards")
    files = sorted(tmp_path.glob("*.safetensors"))
    alone = [tmp_path / str(i) / "part.safetensors" for i in range(3)]
    for file, path in zip(files, alone, strict=True):
        path.parent.mkdir()
        file.rename(path)
    models = [_empty(), _empty()]

    for model, order in zip(models, (alone, alone[::-1]), strict=True):
        with open_checkpoint(order) as checkpoint:
            load_into(model, checkpoint, keys=KEYS, device="cpu", dtype=torch.bfloat16)

    first, second = (model.state_dict() for model in models)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_a_name_in_two_files_is_a_problem_because_their_order_would_count(tmp_path: Path) -> None:
    save_file(_tensors(), tmp_path / "a.safetensors")
    save_file({"time.bias": torch.zeros(4)}, tmp_path / "b.safetensors")

    with (
        open_checkpoint([tmp_path / "a.safetensors", tmp_path / "b.safetensors"]) as checkpoint,
        pytest.raises(WeightsError, match=r"time\.bias: is in more than one file"),
    ):
        load_into(_empty(), checkpoint, keys=KEYS, device="cpu", dtype=torch.float32)


def test_an_interrupted_load_leaves_nothing_open_and_the_file_loads_again(tmp_path: Path) -> None:
    def interrupt(name: str, tensor: Tensor) -> Tensor:
        if name == "time.weight":
            raise KeyboardInterrupt
        return tensor

    with pytest.raises(KeyboardInterrupt):
        _load(_tensors(), tmp_path, on_weight=interrupt)

    opened = [file.path for file in psutil.Process().open_files()]
    assert not [path for path in opened if path.endswith("model.safetensors")]
    assert torch.equal(_load(_tensors(), tmp_path).clock.weight, _tensors()["time.weight"])


PROGRAM = """
import gc, sys, torch
from pathlib import Path
from accelerate import init_empty_weights
from torch import nn
from musubi import FP8Scaled, Int8Scaled
from musubi.architecture import Layout
from musubi.keymap import KeyMap
from musubi.memory.policy import preparation, weight_hook
from musubi.weights import pickled
from musubi.weights.checkpoint import open_checkpoint
from musubi.weights.load import load_into

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024

def load(path, *policies):
    with init_empty_weights():
        model = nn.ModuleList(nn.Linear(2048, 2048, bias=False) for _ in range(6))
    names = dict(keys=KeyMap(()), layout=Layout(blocks=(), adapters=(), quantise=(".*",)))
    preparation(policies, **names)(model)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    with open_checkpoint(path) as checkpoint:
        hook = weight_hook(policies, **names)
        load_into(model, checkpoint, keys=KeyMap(()), device="cpu", dtype=torch.bfloat16, on_weight=hook)
    return status("VmHWM") - before, sum(p.nbytes for p in model.parameters()) / 2**20

torch.set_num_threads(1)
pickled.MAPPED = 10 << 20
folder, policies = Path(sys.argv[1]), {"plain": (), "FP8Scaled": (FP8Scaled(),), "Int8Scaled": (Int8Scaled(),)}
load(folder / sys.argv[2], FP8Scaled(), Int8Scaled())  # what only the first use takes
for name in sys.argv[2:]:
    for how, chosen in policies.items():
        print(name, how, *load(folder / name, *chosen))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process's memory is read from /proc")
def test_loading_takes_the_result_and_two_tensors_at_most(tmp_path: Path) -> None:
    """Loading 48 MiB of matrices of 8 MiB (16 in float32), plain and quantised: how far the memory rises."""
    matrices = {f"{i}.weight": torch.full((2048, 2048), float(i)) for i in range(6)}
    halves = {name: tensor.bfloat16() for name, tensor in matrices.items()}
    save_file(matrices, tmp_path / "float32.safetensors")
    save_file(halves, tmp_path / "bfloat16.safetensors")
    torch.save(halves, tmp_path / "bfloat16.pth")
    files = ["float32.safetensors", "bfloat16.safetensors", "bfloat16.pth"]

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), *files], capture_output=True, text=True, check=True
    )

    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) == 9
    for name, how, peak, result in rows:
        largest = 16 if name.startswith("float32") else 8
        mapped = 16 if name.endswith(".pth") else 0  # two tensors, before a map is made anew
        assert float(peak) < float(result) + 2 * largest + mapped + 3, (name, how, peak, result)


@pytest.mark.parametrize("shapes", [((4, 4), (4, 5)), ((5, 4), (3, 4))], ids=["wider", "as many rows together"])
@pytest.mark.parametrize("hooked", [False, True])
def test_parts_of_a_matrix_are_compared_each_with_its_own_place(
    shapes: tuple[tuple[int, int], tuple[int, int]], tmp_path: Path, *, hooked: bool
) -> None:
    parts = {name: torch.ones(shape) for name, shape in zip(("to_q.weight", "to_k.weight"), shapes, strict=True)}
    save_file(parts, tmp_path / "parts.safetensors")
    with init_empty_weights():
        model = nn.ModuleDict({name: nn.Linear(4, 4, bias=False) for name in ("to_q", "to_k")})

    with open_checkpoint(tmp_path / "parts.safetensors") as file, pytest.raises(WeightsError) as caught:
        load_into(
            model,
            file,
            keys=KeyMap([Rename("qk", ("to_q", "to_k"))]),
            device="cpu",
            dtype=torch.float32,
            on_weight=(lambda _, tensor: tensor) if hooked else None,
        )

    wrong = [name for name, tensor in parts.items() if tensor.shape != (4, 4)]
    assert [issue.path for issue in caught.value.issues] == wrong
