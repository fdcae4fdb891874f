from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from musubi import QwenImage
from musubi.embedding.patches import patched
from musubi.inference.engine import draw_noise
from tests.parity.cases import vector_cases

LATER = {
    "kontext": "draws noise that is packed already; ours is drawn as latents, as in every family and in ComfyUI",
    "hunyuan_video": "draws frame by frame in bfloat16; HunyuanVideo's generations come with their own issue",
}


def drawn(case: dict[str, Any], shape: Sequence[int]) -> Tensor:
    return draw_noise(shape, [case["params"]["seed"]])


def qwen_tokens(case: dict[str, Any]) -> Tensor:
    """Return the same numbers as the reference has them: rounded, and packed into tokens."""
    params = case["params"]
    shape = QwenImage.text_to_image().geometry.latent_shape((params["width"], params["height"]))
    return patched(drawn(case, shape).bfloat16(), (1, 2, 2))


@pytest.mark.parametrize("case", vector_cases("infer_noise"), ids=lambda case: case["id"])
def test_infer_noise(case: dict[str, Any]) -> None:
    if case["arch"] in LATER:
        pytest.skip(LATER[case["arch"]])
    noise = qwen_tokens(case) if case["arch"] == "qwen_image" else drawn(case, case["shape"][-4:])
    noise = noise[0].double().flatten()

    assert noise.numel() == math.prod(case["shape"])
    torch.testing.assert_close(
        noise[case["probe_index"]], torch.tensor(case["probe"], dtype=torch.float64), atol=1e-5, rtol=0
    )
    assert noise.mean().item() == pytest.approx(case["mean"], abs=1e-5)
    assert noise.std().item() == pytest.approx(case["std"], abs=1e-5)
