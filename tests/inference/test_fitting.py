from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from musubi import BlockSwap, FP8Scaled, Wan
from musubi.architecture import StoredWeight
from musubi.core.errors import ConfigError
from musubi.inference.fitting import arranged, fit_context, opened, stored_form
from musubi.memory.policy import FitContext
from musubi.testing.toy import Toy


def eight_bit(path: Path) -> Path:
    save_file({"blocks.0.mlp.weight": torch.ones(4, 4).to(torch.float8_e4m3fn)}, path)
    return path


def test_a_local_file_tells_its_form_before_it_is_opened_for_work(tmp_path: Path) -> None:
    file = eight_bit(tmp_path / "dit.safetensors")

    assert stored_form(Toy().with_weights(dit=file)) == "float8_e4m3fn"
    assert stored_form(Toy().with_weights(dit=tmp_path / "elsewhere.safetensors")) is None
    assert stored_form(Wan.t2v_14b()) is None


def test_the_file_is_looked_into_only_where_its_form_matters(tmp_path: Path) -> None:
    model = Toy().with_weights(dit=eight_bit(tmp_path / "dit.safetensors"))

    assert fit_context(model, [FP8Scaled()]).stored == "float8_e4m3fn"
    assert fit_context(model, [BlockSwap(blocks=1)]).stored is None
    assert not fit_context(model, []).training


def test_the_header_tells_blocks_and_form() -> None:
    toy = Toy(depth=3)
    context = FitContext(title="a toy", layout=toy.layout)

    found = opened(context, toy.denoiser().empty(toy.experts[0]), {"blocks.0.mlp": StoredWeight(dtype="int8")})

    assert (found.blocks, found.stored) == (3, "int8")


def test_policies_that_do_not_fit_the_header_are_refused() -> None:
    toy = Toy(depth=3)

    assert arranged(toy, toy.denoiser(), [BlockSwap(blocks=2), FP8Scaled()]) == (FP8Scaled(), BlockSwap(blocks=2))
    with pytest.raises(ConfigError, match=r"memory\[0\].blocks: must be between 1 and 2"):
        arranged(toy, toy.denoiser(), [BlockSwap(blocks=3)])


def test_describing_a_trainer_or_pipeline_reads_headers_without_torch(tmp_path: Path) -> None:
    file = tmp_path / "dit.safetensors"
    save_file({"blocks.0.ffn.0.weight": torch.ones(4, 4)}, file)
    script = f"""
import sys
from musubi import FP8Scaled, Wan, WanCache, WanPipeline, WanTrainer

wan = Wan.t2v_14b().with_weights(dit={file.as_posix()!r})
WanTrainer(model=wan, cache=WanCache("cache", model=wan), memory=(FP8Scaled(),))
WanPipeline(model=wan, memory=(FP8Scaled(),))
print("torch" in sys.modules)
"""

    told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout

    assert told.strip() == "False"
