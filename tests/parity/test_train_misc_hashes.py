"""The hashes that model managers look for are the reference's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from musubi.networks import fingerprint
from tests.parity.cases import vector, vector_stems

CASES = [c for stem in vector_stems("train_misc") for c in vector(stem)["cases"] if c["kind"] == "sshs_hashes"]


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_train_misc_hashes_equal_the_reference(case: dict[str, Any], tmp_path: Path) -> None:
    tensors = {
        f"lora_unet_b_{i}.lora_down.weight": (torch.arange(6).reshape(2, 3) * (i + 1) / 7).to(torch.bfloat16)
        for i in range(case["n"])
    }

    fingerprint.write(tmp_path / "file.safetensors", tensors, case["metadata"])

    with safe_open(tmp_path / "file.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert metadata == {
        **case["metadata"],
        "sshs_model_hash": case["sshs_model_hash"],
        "sshs_legacy_hash": case["sshs_legacy_hash"],
    }
