from __future__ import annotations

import pytest
import torch
from torch import nn

from musubi.architectures.wan.tasks import Task
from musubi.testing.tiny_networks import tiny_networks

TASKS = {
    "t2v_14b": {"dit", "vae", "t5"},
    "i2v_14b": {"dit", "vae", "t5", "clip"},
    "flf2v_14b": {"dit", "vae", "t5", "clip"},
    "t2v_14b_control": {"dit", "vae", "t5"},
    "i2v_14b_control": {"dit", "vae", "t5", "clip"},
    "t2v_a14b": {"dit_high", "dit_low", "vae", "t5"},
    "i2v_a14b": {"dit_high", "dit_low", "vae", "t5"},
    "ti2v_5b": {"dit", "vae", "t5"},
}
CHANNELS = {"i2v_14b": 36, "flf2v_14b": 36, "t2v_14b_control": 48, "i2v_14b_control": 48, "i2v_a14b": 36, "ti2v_5b": 48}


def networks(task: Task) -> dict[str, nn.Module]:
    return tiny_networks(task, dim=64, head_dim=32, num_layers=1, seed=0)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_the_parts_and_the_channels_of_the_published_one(task: Task) -> None:
    made = networks(task)

    assert made.keys() == TASKS[task]
    for name, network in made.items():
        assert not network.training
        if name.startswith("dit"):
            assert network.get_parameter("patch_embedding.weight").shape[1] == CHANNELS.get(task, 16)


def test_two_experts_differ() -> None:
    made = networks("t2v_a14b")

    high, low = (made[name].get_parameter("proj_out.weight") for name in ("dit_high", "dit_low"))
    assert not torch.equal(high, low)


def test_a_model_of_two_pictures_has_places_for_the_tokens_of_both() -> None:
    positions = networks("flf2v_14b")["dit"].get_parameter("condition_embedder.image_embedder.pos_embed")

    assert positions.shape == (1, 34, 80)
    assert positions.std() > 0
