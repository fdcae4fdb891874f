from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from musubi.architectures.framepack.one_frame import OneFrame, faded, one_frame_section
from musubi.core.errors import ConfigError, DataError


def picture(value: float) -> Tensor:
    return torch.full((16, 1, 4, 6), value)


def test_control_pictures_keep_their_positions_whatever_the_order() -> None:
    section = one_frame_section(OneFrame(target=1, controls=(10, 0)), picture(3.0), [picture(1.0), picture(2.0)])

    assert section.clean_latent_indices.tolist() == [10, 0, 10]
    assert section.latents_clean[0, :, 0, 0].tolist() == [1.0, 2.0, 0.0]
    assert section.latents[0, :, 0, 0].tolist() == [3.0]
    assert section.latent_indices.tolist() == [1]


def test_what_lies_behind_the_section_moves_with_its_length() -> None:
    section = one_frame_section(OneFrame(target=0, window=4), picture(1.0), [picture(0.0)])

    assert section.clean_latent_indices.tolist() == [0, 5]
    assert section.tensors["clean_latent_2x_indices"].tolist() == [6, 7]
    assert section.tensors["clean_latent_4x_indices"].tolist() == list(range(8, 24))


def test_what_is_left_out_leaves_no_tensor() -> None:
    layout = OneFrame(target=9, post=False, history_2x=False, history_4x=False)

    section = one_frame_section(layout, picture(1.0), [picture(2.0)])

    assert section.tensors.keys() == {"latents", "latents_clean", "latent_indices", "clean_latent_indices"}
    assert section.latents_clean.shape == (16, 1, 4, 6)


def test_a_picture_without_position_is_refused() -> None:
    with pytest.raises(DataError, match="2 given, 1 positions"):
        one_frame_section(OneFrame(target=9), picture(1.0), [picture(2.0), picture(3.0)])


def test_impossible_layouts_are_refused_field_by_field() -> None:
    with pytest.raises(ConfigError) as caught:
        OneFrame(target=-1, controls=(0, -2), window=0)

    assert [issue.path for issue in caught.value.issues] == ["target", "controls", "window"]
    with pytest.raises(ConfigError, match="there is no position"):
        OneFrame(target=1, controls=())


def test_a_layout_survives_toml() -> None:
    layout = OneFrame(target=5, controls=(0, 10), post=False)

    assert OneFrame.from_toml(layout.to_toml()) == layout


def test_transparent_places_fade_in_the_latents_and_opaque_ones_do_not() -> None:
    alpha = np.full((32, 48), 255, dtype=np.uint8)
    alpha[:, 24:] = 51

    latents = faded(picture(2.0), alpha)

    torch.testing.assert_close(latents[..., 0], picture(2.0)[..., 0], rtol=0.02, atol=0)
    torch.testing.assert_close(latents[..., -1], picture(0.4)[..., -1], rtol=0.02, atol=0)


def test_fading_keeps_the_type() -> None:
    assert faded(picture(1.0).half(), np.full((32, 48), 128, dtype=np.uint8)).dtype == torch.float16
