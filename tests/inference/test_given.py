from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from musubi.architecture import Roles
from musubi.core.errors import ConfigError
from musubi.inference.given import Given
from musubi.inference.media import Image, Video

STILL, CLIP = Image(np.zeros((8, 6, 3))), Video(np.zeros((9, 8, 6, 3)), fps=1)


def paths(given: Given, roles: Roles) -> list[str]:
    return [issue.path for issue in given.issues(roles, "Toy")]


def test_only_what_is_given_has_a_role() -> None:
    assert Given().sources == {}
    assert list(Given(last=STILL, control=(STILL, STILL)).sources) == ["last", "control"]


def test_what_is_missing_and_what_is_not_looked_at_are_told() -> None:
    roles = Roles(required=("image",), optional=("last",))

    assert paths(Given(image=STILL, last=STILL), roles) == []
    assert paths(Given(last=STILL, video=CLIP), roles) == ["image", "video"]
    assert paths(Given(control=(STILL,)), Roles()) == ["control"]


def test_every_picture_is_read_in_its_own_size_and_a_clip_as_long_as_the_result() -> None:
    asked = Given(image=STILL, control=(CLIP,), video=CLIP).read((64, 48), 5)

    shapes = {role: [tuple(tensor.shape) for tensor in tensors] for role, tensors in asked.media.items()}
    assert shapes == {"image": [(1, 8, 6, 3)], "control": [(5, 8, 6, 3)], "video": [(5, 8, 6, 3)]}
    assert (asked.size, asked.frames) == ((64, 48), 5)


def test_several_control_pictures_are_pictures() -> None:
    with pytest.raises(ConfigError, match="control: must be a picture"):
        Given(control=(STILL, CLIP)).read((64, 48), 5)


def test_a_picture_cannot_stand_for_a_clip_to_change() -> None:
    assert len(Given(video=STILL).read((64, 48), 1).media["video"][0]) == 1
    with pytest.raises(ConfigError, match="video: is a picture, 5 frames are wanted"):
        Given(video=STILL).read((64, 48), 5)


def test_what_lies_in_memory_is_known_from_files() -> None:
    assert Given(image=Path("a/b.png"), last=STILL).in_memory == ("last",)
    assert Given(image=Path("a/b.png"), last=STILL).metadata == {"image": "b.png", "last": "in memory"}
