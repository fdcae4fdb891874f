from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from musubi.networks.file import LoRAFile
from musubi.networks.weights import LoRAWeights
from musubi.training.result import TrainResult

METADATA = {
    "ss_output_name": "clay style",
    "ss_sd_model_name": "Org/Base-14B@main:dit.safetensors",
    "ss_steps": "1600",
    "ss_network_dim": "4",
    "modelspec.title": "Clay *style*",
    "modelspec.architecture": "base/lora",
    "modelspec.license": "apache-2.0",
    "musubi.config": json.dumps({"seed": 7, "network": {"kind": "lora", "rank": 4}}),
}
PROMPT = 'a "clay" fox | <b>walks</b>\n# through snow: ünï'


@pytest.fixture
def lora() -> LoRAFile:
    weights = LoRAWeights(down=torch.ones(4, 8), up=torch.ones(8, 4), alpha=torch.tensor(4.0))
    return LoRAFile(modules={"blocks.0.attn.q": weights}, metadata=METADATA)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    text = PngInfo()
    text.add_itxt("prompt", PROMPT)
    path = tmp_path / "sample one.png"
    Image.new("RGB", (8, 8)).save(path, pnginfo=text)
    return path


@pytest.fixture
def result(lora: LoRAFile, picture: Path, tmp_path: Path) -> TrainResult:
    return TrainResult(
        lora=lora,
        path=tmp_path / "clay.safetensors",
        state=tmp_path / "state",
        steps=1600,
        reason="completed",
        losses=(0.5,),
        rates=(1e-4,),
        seconds=1.0,
        samples=(picture,),
    )
