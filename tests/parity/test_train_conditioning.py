"""What models see beside the noisy latents in training is the reference's, position by position.

Token packing and positions of FLUX and Qwen-Image are diffusers' own functions here, called with our layouts: where an
architecture has its own code for that, its issue brings the comparison.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from musubi.architectures.flux_kontext.denoiser import image_ids
from musubi.architectures.framepack import one_frame as framepack_one_frame
from musubi.architectures.framepack.one_frame import one_frame_section
from musubi.architectures.framepack.sections import Section, forward_sections, inverted_sections, used_frames
from musubi.architectures.wan import one_frame as wan_one_frame
from musubi.architectures.wan.conditions import latents_control, latents_image
from musubi.architectures.wan.one_frame import encode_one_frame
from musubi.cache.format import SUFFIX, latent_label
from musubi.data.media.frames import scaled
from musubi.data.sample import Window
from musubi.embedding.controls import framed
from musubi.embedding.patches import patched
from tests.parity.cases import vector_cases

CASES = vector_cases("train_conditioning")
FIRST = 100


def of_kind(kind: str) -> pytest.MarkDecorator:
    cases = [case for case in CASES if case["kind"] == kind]
    return pytest.mark.parametrize("case", cases, ids=[case["id"] for case in cases])


def frames(latents: Tensor | None) -> list[int] | None:
    """Return the value of each frame; the reference lists no latents where it has positions only."""
    return None if latents is None else [int(value) for value in latents[0, :, 0, 0]]


def places(indices: Tensor | None) -> list[int] | None:
    return None if indices is None else indices.tolist()


def described(section: Section) -> dict[str, Any]:
    return {
        "target": frames(section.latents),
        "latent_indices": places(section.latent_indices),
        "clean": frames(section.latents_clean),
        "clean_indices": places(section.clean_latent_indices),
        "clean_2x": frames(section.latents_clean_2x),
        "idx_2x": places(section.clean_latent_2x_indices),
        "clean_4x": frames(section.latents_clean_4x),
        "idx_4x": places(section.clean_latent_4x_indices),
    }


def numbered(count: int) -> Tensor:
    """Return latents whose frames have the values 100, 101, ..."""
    return (FIRST + torch.arange(count)).float().view(1, -1, 1, 1).expand(16, -1, 2, 2)


@of_kind("framepack_sections")
def test_train_conditioning_framepack_sections(case: dict[str, Any]) -> None:
    window, make = case["latent_window_size"], forward_sections if case["f1"] else inverted_sections
    latents = numbered((used_frames(case["frames"], window=window) - 1) // 4 + 1)
    if not isinstance(case.get("sections"), list):
        with pytest.raises(ValueError, match="a section takes"):
            make(latents, window=window)
        return

    made = make(latents, window=window)

    named = {
        latent_label("v", size=(16, 16), suffix="fp", window=Window(0, case["frames"]), part=i) + SUFFIX: described(one)
        for i, one in enumerate(made)
    }
    assert named == {expected.pop("file"): expected for expected in [dict(one) for one in case["sections"]]}


@of_kind("framepack_one_frame")
def test_train_conditioning_framepack_one_frame(case: dict[str, Any]) -> None:
    layout = framepack_one_frame.OneFrame(
        target=case["fp_1f_target_index"],
        controls=tuple(case["fp_1f_clean_indices"]),
        window=case["latent_window_size"],
        post=not case["fp_1f_no_post"],
        history_2x=not case["one_frame_no_2x"],
        history_4x=not case["one_frame_no_4x"],
    )
    *controls, target = (numbered(1) + i for i in range(case["n_control"] + 1))

    section = one_frame_section(layout, target, controls)

    expected = described(section)
    assert expected == {key: case[key] for key in expected}


def encode(video_BCFHW: Tensor) -> Tensor:
    """Stand in for the VAE: every latent frame holds its first frame's value."""
    return torch.cat([video_BCFHW[:, :1, :1], video_BCFHW[:, :1, 1::4]], dim=2)[..., ::8, ::8].expand(
        -1, 16, -1, -1, -1
    )


@of_kind("wan_i2v_image_latent")
def test_train_conditioning_wan_image_latents(case: dict[str, Any]) -> None:
    video = torch.linspace(-1, 1, case["frames"]).view(1, 1, -1, 1, 1).expand(1, 3, -1, 16, 16)

    condition = latents_image(encode, video[:, :, 0], frames=case["frames"])[0]

    assert list(condition.shape) == case["y_shape"]
    assert condition[:4, :, 0, 0].T.int().tolist() == case["mask_channels_by_latent_frame"]
    assert (condition[4:, 0] == video[0, 0, 0, 0, 0]).all()
    assert not condition[4:, 1:].any()
    if case["control_shape"] is not None:
        control = latents_control(encode, video, frames=case["frames"])
        assert list(control.shape[1:]) == case["control_shape"]


@of_kind("wan_one_frame")
def test_train_conditioning_wan_one_frame(case: dict[str, Any]) -> None:
    controls, target = tuple(case["fp_1f_clean_indices"]), case["fp_1f_target_index"]
    if list(controls) != sorted(controls) or target in controls:
        pytest.skip("the reference gives the pictures to other positions than it was told (data specification 5.5)")
    layout = wan_one_frame.OneFrame(target=target, controls=controls)
    *pictures, made, grey = (
        scaled(torch.full((1, 1, 16, 16, 3), FIRST + i, dtype=torch.uint8))[:, :, 0] for i in range(len(controls) + 2)
    )
    names = {round(float(picture.flatten()[0]), 4): FIRST + i for i, picture in enumerate([*pictures, made, grey])}

    found = encode_one_frame(encode, layout, made, pictures)

    def shown(latents: Tensor) -> list[int]:
        """Return which picture lies in each frame; mid grey is the last one encoded."""
        values = [round(float(value), 4) for value in latents[0, -1, :, 0, 0]]
        return [names.get(value, FIRST + len(controls) + 1) for value in values]

    assert found.f_indices.tolist() == case["f_indices"]
    assert shown(found.latents) == case["train_latent"]
    assert shown(found.latents_image) == case["cond_latent"]
    assert found.latents_image[0, 0, :, 0, 0].int().tolist() == case["mask"]


@of_kind("flux_pack")
def test_train_conditioning_flux_tokens(case: dict[str, Any]) -> None:
    latents = torch.arange(torch.Size(case["shape"]).numel()).float().view(case["shape"])

    assert patched(latents[:, :, None], (1, 2, 2))[0].int().tolist() == case["packed"]


@of_kind("flux_img_ids")
def test_train_conditioning_flux_positions(case: dict[str, Any]) -> None:
    latents = torch.zeros(1, 16, 1, 2 * case["packed_h"], 2 * case["packed_w"])

    ids = image_ids(latents, int(case["is_ctrl"]))

    assert ids.int().tolist() == case["ids"]


@of_kind("qwen_pack")
def test_train_conditioning_qwen_tokens(case: dict[str, Any]) -> None:
    latents = torch.arange(torch.Size(case["shape"]).numel()).float().view(case["shape"])

    assert patched(framed(latents), (1, 2, 2))[0].int().tolist() == case["packed"]


@of_kind("qwen_rope_positions")
def test_train_conditioning_qwen_positions(case: dict[str, Any]) -> None:
    from diffusers.models.transformers.transformer_qwenimage import QwenEmbedRope

    rope = QwenEmbedRope(theta=10000, axes_dim=[2, 2, 2], scale_rope=True)

    shapes = [(frames, height, width) for frames, height, width in case["img_shapes"]]
    image, text = rope([shapes], torch.device("cpu"), max_txt_seq_len=case["txt_len"])

    assert image.angle().round().int().tolist() == case["img_pos_frame_h_w"]
    assert text.angle().round().int()[:, 0].tolist() == case["txt_pos"]
