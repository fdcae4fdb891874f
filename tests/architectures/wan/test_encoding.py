from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from musubi.architecture import Asked
from musubi.architectures.wan.encoding import (
    ask_clip,
    ask_control,
    ask_image,
    ask_video,
    describe_samples,
    encode_samples,
)
from musubi.architectures.wan.one_frame import OneFrame
from musubi.architectures.wan.sight import Sight
from musubi.batch import Sample
from musubi.core.errors import DataError
from musubi.data.media.frames import covered

SIZE = (32, 16)
PLACED = Sight(image=True, one_frame=OneFrame(target=1, controls=(2, 0)))


def encode(video_BCFHW: Tensor) -> Tensor:
    """Stand in for a VAE: a latent frame has the value of its first frame, from 0 to 255, in every channel."""
    frames = torch.cat([video_BCFHW[:, :1, :1], video_BCFHW[:, :1, 1::4]], dim=2)
    return ((frames[..., ::8, ::8] + 1) * 127.5).round().expand(-1, 16, -1, -1, -1)


def describe(images_BCHW: Tensor) -> Tensor:
    """Stand in for CLIP: three tokens of the picture's mean."""
    mean = ((images_BCHW.mean((1, 2, 3)) + 1) * 127.5).round()
    return mean[:, None, None].expand(-1, 3, 2)


def clip(*values: int, size: tuple[int, int] = SIZE) -> Tensor:
    """Return frames (F, H, W, 3) of these values."""
    return torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, size[1], size[0], 3)


def sample(name: str, pixels: Tensor, *controls: Tensor) -> Sample:
    return Sample(name=name, pixels=pixels, controls={"control": controls} if controls else {})


def asked(frames: int = 5, **media: Any) -> Asked:
    return Asked(media=media, size=SIZE, frames=frames)


def values(latents_CFHW: Tensor) -> list[float]:
    return latents_CFHW[-1, :, 0, 0].tolist()


def masks(condition: Tensor) -> list[float]:
    return condition[:4, :, 0, 0].mean(0).tolist()


def test_items_show_their_own_first_and_last_frames() -> None:
    items = [sample("a", clip(10, 11, 12, 13, 14)), sample("b", clip(20, 21, 22, 23, 24))]

    made = encode_samples(encode, Sight(image=True, last=True), items)

    assert [values(one["latents"]) for one in made] == [[10, 11], [20, 21]]
    assert [one["latents_image"][4, 0, 0, 0].item() for one in made] == [10, 20]
    assert masks(made[0]["latents_image"]) == [1, 0.25]
    assert made[0]["latents_image"].shape == (20, 2, 2, 4)


def test_a_single_picture_has_no_last_frame() -> None:
    (made,) = encode_samples(encode, Sight(image=True, last=True), [sample("a", clip(10))])

    assert values(made["latents_image"]) == [10]
    assert masks(made["latents_image"]) == [1]


def test_items_follow_their_control_scaled_and_held() -> None:
    control = clip(50, 51, 52, size=(96, 80))

    (made,) = encode_samples(encode, Sight(control=True), [sample("a", clip(*range(9)), control)])

    assert made.keys() == {"latents", "latents_control"}
    assert values(made["latents_control"]) == [50, 51, 52]
    assert made["latents_control"].shape == made["latents"].shape


def test_every_item_without_a_control_is_named() -> None:
    items = [sample("there", clip(1), clip(2)), sample("lost", clip(1)), sample("gone", clip(1))]

    with pytest.raises(DataError) as caught:
        encode_samples(encode, Sight(control=True), items)

    assert [issue.path for issue in caught.value.issues] == ["lost", "gone"]


def test_two_controls_for_one_clip_are_refused() -> None:
    with pytest.raises(DataError, match="a: has 2"):
        encode_samples(encode, Sight(control=True), [sample("a", clip(1), clip(2), clip(3))])


def test_control_pictures_of_a_single_frame_lie_at_their_own_positions() -> None:
    items = [sample(name, clip(first), clip(first + 1), clip(first + 2)) for name, first in (("a", 10), ("b", 20))]

    made = encode_samples(encode, PLACED, items)

    assert [values(one["latents"]) for one in made] == [[12, 10, 11], [22, 20, 21]]
    assert [values(one["latents_image"]) for one in made] == [[12, 128, 11], [22, 128, 21]]
    assert masks(made[1]["latents_image"]) == [1, 0, 1]
    assert made[0]["f_indices"].tolist() == [0, 1, 2]
    assert made[0]["f_indices"].dtype == torch.int32


def test_a_single_frame_asked_for_has_the_condition_it_was_trained_with() -> None:
    (trained,) = encode_samples(encode, PLACED, [sample("a", clip(10), clip(11), clip(12))])

    made = ask_control(encode, PLACED, asked(1, control=(clip(11), clip(12))))

    assert torch.equal(made["latents_image"], trained["latents_image"])
    assert torch.equal(made["f_indices"], trained["f_indices"])


@pytest.mark.parametrize("pictures", [0, 1, 3])
def test_control_pictures_without_position_are_refused(pictures: int) -> None:
    with pytest.raises(DataError, match=f"has {pictures} control pictures, 2 positions are given"):
        ask_control(encode, PLACED, asked(1, control=(clip(1),) * pictures))


def test_clip_sees_the_first_frame_and_the_last_one_where_the_model_takes_both() -> None:
    items = [sample("a", clip(10, 11, 12, 13, 14)), sample("b", clip(20, 21, 22, 23, 24))]

    one, both = (describe_samples(describe, Sight(image=True, last=last), items) for last in (False, True))

    assert [made["clip"][:, 0].tolist() for made in one] == [[10] * 3, [20] * 3]
    assert [made["clip"][:, 0].tolist() for made in both] == [[10] * 3 + [14] * 3, [20] * 3 + [24] * 3]


def test_clip_sees_the_control_pictures_of_a_single_frame() -> None:
    item = sample("a", clip(10), clip(11), clip(12))
    both = Sight(image=True, last=True, one_frame=PLACED.one_frame)

    assert describe_samples(describe, PLACED, [item])[0]["clip"][:, 0].tolist() == [11] * 3
    assert describe_samples(describe, both, [item])[0]["clip"][:, 0].tolist() == [11] * 3 + [12] * 3
    assert ask_clip(describe, both, asked(1, control=(clip(11), clip(12))))["clip"][::3, 0].tolist() == [11, 12]
    assert ask_clip(describe, PLACED, asked(1, control=(clip(11), clip(12))))["clip"][:, 0].tolist() == [11] * 3
    own = asked(1, control=(clip(11), clip(12)), image=(clip(9),))
    assert ask_clip(describe, PLACED, own)["clip"][:, 0].tolist() == [9] * 3


def test_pictures_of_any_size_are_shown_at_exactly_the_size_of_the_result() -> None:
    tall = clip(10, size=(20, 90))

    made = ask_image(encode, Sight(image=True), asked(9, image=(tall,)))

    assert made["latents_image"].shape == (20, 3, 2, 4)
    assert made["latents_image"][4, 0].unique().tolist() == [10]


def test_a_last_picture_lies_in_the_last_frame_of_models_made_for_it() -> None:
    made = ask_image(encode, Sight(image=True, last=True), asked(9, image=(clip(10),), last=(clip(20),)))

    assert masks(made["latents_image"]) == [1, 0, 0.25]


def test_a_last_picture_takes_a_latent_frame_of_other_models() -> None:
    made = ask_image(encode, Sight(image=True), asked(9, image=(clip(10),), last=(clip(20),)))

    assert masks(made["latents_image"]) == [1, 0, 1]
    assert values(made["latents_image"]) == [10, 128, 20]


def test_a_start_without_mask_is_one_latent_frame() -> None:
    made = ask_image(encode, Sight(start=True), asked(9, image=(clip(10),)))

    assert made["latents_image"].shape == (16, 1, 2, 4)
    assert values(made["latents_image"]) == [10]


def test_a_control_clip_or_its_pictures_are_followed_in_time() -> None:
    a_clip = ask_control(encode, Sight(control=True), asked(5, control=(clip(*range(30, 35)),)))
    pictures = ask_control(encode, Sight(control=True), asked(5, control=tuple(clip(value) for value in range(30, 35))))

    assert values(a_clip["latents_control"]) == [30, 31]
    assert torch.equal(a_clip["latents_control"], pictures["latents_control"])


def test_a_clip_to_change_becomes_latents() -> None:
    made = ask_video(encode, asked(5, video=(clip(*range(30, 35), size=(64, 32)),)))

    assert values(made["latents"]) == [30, 31]
    assert made["latents"].shape == (16, 2, 2, 4)


def test_what_is_not_shown_is_not_made() -> None:
    nothing = asked(5)

    assert ask_image(encode, Sight(image=True), nothing) == {}
    assert ask_control(encode, Sight(control=True), nothing) == ask_video(encode, nothing) == {}
    assert ask_clip(describe, Sight(image=True), nothing) == {}


def test_covering_crops_around_the_centre() -> None:
    frame = torch.zeros(1, 16, 64, 3, dtype=torch.uint8)
    frame[:, :, 16:48] = 200

    assert covered(frame, (32, 16)).unique().tolist() == [200]
