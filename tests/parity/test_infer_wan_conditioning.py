"""What Wan's transformer is given beside noise and text, laid out in time as the reference gives it.

Pictures are of one colour, so a small size shows the same as the case's; shapes come from the geometry. Where ours is
another by decision:

* I2V takes of the asked size its area alone in the reference, and of the picture the aspect (spec 2.6.2, a quirk which
  makes 464x832 of 480x832). Here the size is what was asked, so shapes are compared where the reference kept it.
* A last picture for a model that was not made for one makes the reference's clip four frames longer than asked. Here
  these four frames are the last ones of the clip; the same clip is asked for with four frames more.
* Sizes that are no multiples of 16 cannot be cut into patches (2.6.1): refused.
* With a last picture Fun-Control's clip and pictures differ in length there, and it fails; here they do not.
* Single frames: pictures whose positions are not in ascending order come to the wrong ones there (2.7), to theirs here.
"""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from musubi.architecture import Asked
from musubi.architectures.wan.conditions import latents_control
from musubi.architectures.wan.encoding import ask_control, ask_image
from musubi.architectures.wan.one_frame import OneFrame
from musubi.architectures.wan.sight import Sight
from musubi.architectures.wan.tasks import GEOMETRY
from musubi.core.errors import ConfigError
from tests.parity.cases import vector_cases

SIZE = (32, 16)
WHITE, END = 255, 64


def encode(video_BCFHW: Tensor) -> Tensor:
    """Stand in for the VAE as the reference's stub does: a latent frame holds the mean of its frames."""
    first, rest = video_BCFHW[:, :1, :1], video_BCFHW[:, :1, 1:]
    latents = torch.cat([first, rest.unflatten(2, (-1, 4)).mean(3)], dim=2)
    return latents[..., ::8, ::8].expand(-1, 16, -1, -1, -1)


def frames_of(value: int, count: int = 1) -> Tensor:
    return torch.full((count, SIZE[1], SIZE[0], 3), value, dtype=torch.uint8)


def means(latents_CFHW: Tensor) -> list[float]:
    return latents_CFHW.mean((0, 2, 3)).tolist()


def masks(condition: Tensor) -> list[list[float]]:
    return condition[:4, :, 0, 0].T.tolist()


def named(case: dict[str, Any]) -> str:
    return str(case["id"])


CASES = vector_cases("infer_wan_conditioning")
SINGLE = [case for case in CASES if "one_frame" in case]
TEXT = [case for case in CASES if "one_frame" not in case and "start_image_wh" not in case]
IMAGE = [case for case in CASES if case.get("start_image_wh")]


def test_infer_wan_conditioning_cases_are_of_known_kinds() -> None:
    assert len(SINGLE) + len(TEXT) + len(IMAGE) == len(CASES)


@pytest.mark.parametrize("case", TEXT, ids=named)
def test_infer_wan_conditioning_text(case: dict[str, Any]) -> None:
    height, width = case["requested_size_hw"]
    refused = GEOMETRY.size_issues((width, height))
    if height % 16 or width % 16:
        assert refused
    else:
        shape = GEOMETRY.latent_shape((width, height), case["video_length"])
        assert list(shape) == case["noise_shape"]
        assert GEOMETRY.tokens(shape) == case["seq_len"]
    if "y_channels" in case:
        control = torch.full((1, 3, 1, SIZE[1], SIZE[0]), case["control_mean"])
        latents = latents_control(encode, control, frames=case["video_length"])
        assert latents.shape[1] + 16 == case["y_channels"]  # zeros in the place of a picture
        assert latents.mean().item() == pytest.approx(case["control_mean"], abs=1e-3)


@pytest.mark.parametrize("case", IMAGE, ids=named)
def test_infer_wan_conditioning_image(case: dict[str, Any]) -> None:
    ends, made_for_ends = bool(case["end_image_wh"]), case["task"].startswith("flf2v")
    frames = case["video_length"] + (4 if ends and not made_for_ends else 0)
    last = {"last": (frames_of(END),)} if ends else {}
    asked = Asked(media={"image": (frames_of(WHITE),), **last}, size=SIZE, frames=frames)

    condition = ask_image(encode, Sight(image=True, last=made_for_ends), asked)["latents_image"]

    if "error" in case:  # there the control clip is a latent frame short of the pictures (spec 2.6.4)
        made = ask_control(
            encode, Sight(control=True), attrs.evolve(asked, media={"control": (frames_of(END, frames),)})
        )
        assert made["latents_control"].shape[1] == condition.shape[1]
        return
    if "control_mean_per_frame" in case:
        control = torch.full((1, 3, frames, SIZE[1], SIZE[0]), 0.25)
        latents = latents_control(encode, control, frames=frames)[0]
        assert means(latents) == pytest.approx(case["control_mean_per_frame"], abs=1e-3)
        assert means(condition[4:]) == pytest.approx(case["image_latent_mean_per_frame"], abs=1e-3)
        assert len(latents) + len(condition) - 4 == case["y_channels"]
    else:
        assert masks(condition) == case["mask_channels_per_frame"]
        assert means(condition[4:]) == pytest.approx(case["latent_mean_per_frame"], abs=1e-3)
        assert condition.shape[:2] == (
            case["y_channels"],
            case["y_frames"] if "y_frames" in case else condition.shape[1],
        )
    height, width = case["requested_size_hw"]
    shape = GEOMETRY.latent_shape((width, height), frames)
    assert shape[:2] == tuple(case["noise_shape"][:2]) == (16, condition.shape[1])
    if [case["height"], case["width"]] == [height, width]:
        assert list(shape) == case["noise_shape"]
        assert GEOMETRY.tokens(shape) == case["seq_len"]


@pytest.mark.parametrize("case", SINGLE, ids=named)
def test_infer_wan_conditioning_single_frame(case: dict[str, Any]) -> None:
    words = dict(part.split("=") for part in case["one_frame"].split(",") if "=" in part)
    target = int(words.get("target_index", 0))
    positions = [int(word) for word in words.get("control_index", "").split(";") if word]
    if target in positions or not 1 <= len(positions) <= 2 or len(set(positions)) < len(positions):
        with pytest.raises(ConfigError):
            OneFrame(target=target, controls=tuple(positions))
        return
    layout = OneFrame(target=target, controls=tuple(positions))
    shown = tuple(frames_of(gray) for gray in case["control_image_gray"])
    if len(shown) != len(positions):
        pytest.skip("the reference takes fewer pictures than positions, here each position has its own (spec 2.7)")
    asked = Asked(media={"control": shown}, size=SIZE, frames=1)

    made = ask_control(encode, Sight(image=True, one_frame=layout), asked)

    assert made["f_indices"].tolist() == case["f_indices"]
    assert case["f_indices"].index(target) == case["extract_index"]
    assert masks(made["latents_image"]) == case["mask_channels_per_frame"]
    in_order = positions == sorted(positions)
    given = dict(zip(sorted(positions), case["control_image_gray"], strict=True))
    ours = dict(zip(positions, case["control_image_gray"], strict=True))
    expected = dict(zip(case["f_indices"], case["latent_mean_per_frame"], strict=True))
    assert {place: gray / 127.5 - 1 for place, gray in given.items()} | {target: 0.0} == pytest.approx(
        expected, abs=1e-3
    )
    found = dict(zip(layout.positions, means(made["latents_image"][4:]), strict=True))
    assert found == pytest.approx({p: g / 127.5 - 1 for p, g in ours.items()} | {target: 0.0}, abs=1e-3)
    assert found == pytest.approx(expected, abs=1e-3) or not in_order
    assert case["noise_shape"][1] == len(case["f_indices"])


def test_a_control_clip_is_asked_for_at_the_size_of_the_result() -> None:
    clip = torch.full((9, 40, 64, 3), WHITE, dtype=torch.uint8)

    latents = ask_control(encode, Sight(control=True), Asked(media={"control": (clip,)}, size=SIZE, frames=5))[
        "latents_control"
    ]

    assert latents.shape == (16, 2, 2, 4)
