from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from musubi import ConfigError
from musubi.architecture import Architecture
from musubi.networks.full_weights import FullWeights
from musubi.testing.checkpoints import WanFiles, tiny_wan
from musubi.testing.toy import Toy, original_weights
from musubi.training.saving import save_model, save_trained

ROOT = Path(__file__).parents[2]


def loaded(architecture: Architecture, dtype: torch.dtype = torch.float32) -> nn.Module:
    return architecture.denoiser().load(architecture.experts[0], device=torch.device("cpu"), dtype=dtype)


def trained_model(architecture: Architecture, dtype: torch.dtype) -> tuple[nn.Module, FullWeights]:
    """Return a model whose every parameter has moved, and what moved."""
    model = loaded(architecture, dtype)
    trained = FullWeights(dict(model.named_parameters()))
    for parameter in model.parameters():
        parameter.detach().mul_(1.25)
    return model, trained


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("which", ["toy", "wan", "diffusers"])
def test_the_file_loads_as_the_base_model_does_and_has_the_very_numbers(
    which: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    layout: WanFiles = "diffusers" if which == "diffusers" else "original"
    architecture: Architecture = Toy() if which == "toy" else tiny_wan(tmp_path, layout=layout, head_dim=64, dim=128)
    model, trained = trained_model(architecture, dtype)
    path = tmp_path / "out" / "model.safetensors"

    save_trained(trained, model, path, {"ss_steps": "7", "wan.num_heads": "2"}, architecture)

    again = loaded(architecture.with_weights(dit=path), dtype)
    first, second = model.state_dict(), again.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) and first[name].dtype == second[name].dtype for name in first)


def test_names_and_shapes_are_the_original_ones_with_fused_modules_whole(tmp_path: Path) -> None:
    toy = Toy()
    save_model(loaded(toy), tmp_path / "model.safetensors", {}, keys=toy.keys)

    original = original_weights(toy)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(original)
        assert all(torch.equal(file.get_tensor(name), original[name]) for name in original)


def test_the_header_keeps_what_the_base_says_of_the_model_but_not_of_its_making(tmp_path: Path) -> None:
    wan = tiny_wan(tmp_path)
    base = tmp_path / "dit.safetensors"
    save_model(loaded(wan), base, {"wan.num_heads": "2", "ss_steps": "5", "modelspec.title": "Old"}, keys=wan.keys)
    model, trained = trained_model(wan, torch.float32)

    save_trained(trained, model, tmp_path / "new.safetensors", {"ss_steps": "7"}, wan)

    with safe_open(tmp_path / "new.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "wan.num_heads": "2", "ss_steps": "7"}


def test_a_process_that_does_not_lead_writes_nothing(tmp_path: Path) -> None:
    save_model(loaded(Toy()), tmp_path / "model.safetensors", {}, keys=Toy().keys, leads=False)

    assert not list(tmp_path.iterdir())


def test_what_is_there_stays_if_the_new_file_cannot_be_finished(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("older", encoding="utf-8")
    model = loaded(Toy())
    model.register_parameter("odd", nn.Parameter(torch.zeros(2, dtype=torch.complex64), requires_grad=False))

    with pytest.raises(ConfigError, match="which the format lacks"):
        save_model(model, path, {}, keys=Toy().keys)

    assert path.read_text(encoding="utf-8") == "older"
    assert list(tmp_path.iterdir()) == [path]


MEASURE = """
import json, resource, sys
from pathlib import Path
import torch
from musubi.architecture import Expert
from musubi.testing.toy import Toy
from musubi.training.saving import save_model

toy = Toy(dim=2048, depth=2)
model = toy.denoiser().empty(Expert()).to_empty(device="cpu")
for parameter in model.parameters():
    parameter.detach().fill_(1.0)
small = Toy(dim=64).denoiser().load(Expert(), device=torch.device("cpu"), dtype=torch.float32)
save_model(small, Path(sys.argv[1]), {}, keys=toy.keys)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
save_model(model, Path(sys.argv[1]), {}, keys=toy.keys)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"extra": (after - before) * 1024, "file": Path(sys.argv[1]).stat().st_size}))
"""


def test_saving_takes_the_memory_of_the_largest_tensor_and_no_more(tmp_path: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("the peak of memory is told in other units")
    told = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "model.safetensors"],
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )

    measured = json.loads(told.stdout)
    largest = 3 * 2048 * 2048 * 4
    assert measured["file"] > 3 * largest
    assert measured["extra"] < 1.1 * largest
