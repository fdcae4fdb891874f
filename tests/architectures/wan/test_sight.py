from __future__ import annotations

import pytest

from musubi.architectures.wan.one_frame import OneFrame
from musubi.architectures.wan.sight import Sight, sight_of


@pytest.mark.parametrize("task", ["t2v_1_3b", "t2v_14b", "t2i_14b", "t2v_a14b"])
def test_text_alone_tells_no_caches_apart(task: str) -> None:
    assert sight_of(task) == Sight()
    assert sight_of(task).identity == ""


def test_tasks_that_cache_other_things_have_other_identities() -> None:
    tasks = ("t2v_14b", "i2v_14b", "flf2v_14b", "t2v_14b_control", "i2v_14b_control")
    places = [
        OneFrame(target=1),
        OneFrame(target=2),
        OneFrame(target=1, controls=(0, 2)),
        OneFrame(target=0, controls=(1,)),
    ]

    found = [sight_of(task).identity for task in tasks] + [sight_of("i2v_14b", place).identity for place in places]

    assert len(set(found)) == len(found)


def test_the_same_latents_serve_the_image_models_of_both_versions() -> None:
    assert sight_of("i2v_14b").identity == sight_of("i2v_a14b").identity
