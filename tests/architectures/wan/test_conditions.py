from __future__ import annotations

from functools import partial
from typing import Any, cast

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from musubi.architectures.wan.conditions import Encode, given_frames, latents_control, latents_image
from musubi.architectures.wan.spec import Wan
from musubi.architectures.wan.vae import load_vae
from musubi.causal_vae.coding import encode_video


@pytest.fixture(scope="module")
def vae(tiny: Wan) -> AutoencoderKLWan:
    return load_vae(tiny.weight("vae").resolve(), device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="module")
def encode(vae: AutoencoderKLWan) -> Encode:
    return partial(encode_video, vae)


def pictures(seed: int, count: int = 2) -> Tensor:
    return torch.rand(count, 3, 32, 48, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def seen(video_BCFHW: Tensor) -> Tensor:
    """Stand in for a VAE that keeps the first of every four frames as it is, in sixteen channels."""
    frames = torch.cat([video_BCFHW[:, :1, :1], video_BCFHW[:, :1, 1::4]], dim=2)
    return frames[..., ::8, ::8].expand(-1, 16, -1, -1, -1)


@pytest.mark.parametrize("last", [None, pictures(1)])
def test_the_condition_is_the_one_of_diffusers(last: Tensor | None, vae: AutoencoderKLWan, encode: Encode) -> None:
    pipeline: Any = cast(Any, WanImageToVideoPipeline)(None, None, vae, UniPCMultistepScheduler())
    first = pictures(0)

    condition = latents_image(encode, first, frames=9, last_BCHW=last)

    arguments: dict[str, Any] = {"height": 32, "width": 48, "num_frames": 9, "dtype": torch.float32}
    for item in range(2):
        end = None if last is None else last[item : item + 1]
        _, expected = pipeline.prepare_latents(
            first[item : item + 1], 1, **arguments, device="cpu", generator=torch.Generator(), last_image=end
        )
        torch.testing.assert_close(condition[item : item + 1], expected, rtol=0, atol=1e-5)


def test_between_the_given_frames_there_is_mid_grey() -> None:
    condition = latents_image(seen, torch.ones(1, 3, 16, 16), frames=9)

    assert condition.shape == (1, 20, 3, 2, 2)
    assert condition[0, 4:, :, 0, 0].unique(dim=0).tolist() == [[1.0, 0.0, 0.0]]
    assert condition[0, :4, :, 0, 0].T.tolist() == [[1.0] * 4, [0.0] * 4, [0.0] * 4]


def test_of_a_last_frame_only_the_last_quarter_is_given() -> None:
    assert given_frames(5, last=True).T.tolist() == [[1.0] * 4, [0.0, 0.0, 0.0, 1.0]]


def test_a_still_is_given_whole() -> None:
    assert given_frames(1).tolist() == [[1.0]] * 4


def test_the_condition_has_the_type_of_the_latents() -> None:
    assert latents_image(seen, torch.ones(1, 3, 16, 16).bfloat16(), frames=5).dtype == torch.bfloat16


@pytest.mark.parametrize(("frames", "last"), [(0, False), (4, False), (1, True)])
def test_clips_that_cannot_be_are_refused(frames: int, *, last: bool) -> None:
    with pytest.raises(ValueError, match="frame"):
        given_frames(frames, last=last)


@pytest.mark.parametrize(("length", "expected"), [(9, [0.0, 1.0, 5.0]), (12, [0.0, 1.0, 5.0]), (3, [0.0, 1.0, 2.0])])
def test_a_control_video_is_cut_or_held_at_its_end(length: int, expected: list[float]) -> None:
    control = torch.arange(float(length)).view(1, 1, -1, 1, 1).expand(1, 3, -1, 16, 16)

    latents = latents_control(seen, control, frames=9)

    assert latents[0, 0, :, 0, 0].tolist() == expected


def test_a_control_picture_is_held_for_a_whole_clip(encode: Encode) -> None:
    still = pictures(0)[:, :, None]

    held = latents_control(encode, still, frames=5)

    torch.testing.assert_close(held, encode(still.repeat(1, 1, 5, 1, 1)), rtol=0, atol=1e-5)
