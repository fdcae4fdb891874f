from __future__ import annotations

import torch

from musubi import Wan
from musubi.inference.components import component_bytes, decoder_bytes, encoding
from musubi.memory.encoders import TextEncoderMemory
from musubi.weights.checkpoint import open_checkpoint


def numbers(wan: Wan, component: str) -> int:
    with open_checkpoint(wan.weight(component).resolve()) as checkpoint:
        return sum(_count(checkpoint.shape(name)) for name in checkpoint.names())


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total


def test_a_component_takes_its_numbers_in_the_type_in_which_it_works(wan: Wan) -> None:
    in_half = component_bytes(wan, "t5", dtype=torch.bfloat16, policies=())

    assert in_half == 2 * numbers(wan, "t5")
    assert decoder_bytes(wan, ()) == 4 * numbers(wan, "vae")


def test_what_stays_on_the_host_takes_nothing(wan: Wan) -> None:
    assert component_bytes(wan, "t5", dtype=torch.bfloat16, policies=(TextEncoderMemory(on_cpu=True),)) == 0


def test_a_file_that_is_not_here_is_told_and_not_fetched() -> None:
    stages = encoding(Wan.t2v_14b().with_weights(t5="nowhere.safetensors"), ())

    text = next(stage for stage in stages if stage.name == "encoding text")
    assert text.device == 0
    assert "t5, whose file is not here" in text.what


def test_every_stage_names_its_components(wan: Wan) -> None:
    assert [stage.name for stage in encoding(wan, ())] == [f"encoding {stage.name}" for stage in wan.stages]
