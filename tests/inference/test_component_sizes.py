from __future__ import annotations

from pathlib import Path

import pytest
import torch

from musubi import NF4, BlockSwap, FP8Cast, FP8Scaled, Int8Scaled, Wan
from musubi.inference.component_sizes import device_bytes
from musubi.memory.components import loaded, policies_within
from musubi.memory.encoders import TextEncoderMemory
from musubi.memory.policy import MemoryPolicy
from musubi.testing.checkpoints import WanFiles, tiny_wan
from musubi.weights.checkpoint import open_checkpoint

CPU = torch.device("cpu")
QUANTISING: tuple[tuple[MemoryPolicy, ...], ...] = ((), (Int8Scaled(),), (FP8Scaled(),), (FP8Cast(),), (NF4(),))
LAYOUTS: tuple[WanFiles, ...] = ("original", "original_pth", "diffusers")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Wan]:
    folder = tmp_path_factory.mktemp("files")
    return {layout: tiny_wan(folder / layout, layout=layout) for layout in LAYOUTS}


def foreseen(wan: Wan, *policies: MemoryPolicy, dtype: torch.dtype = torch.bfloat16) -> int:
    component = wan.component("t5")
    with open_checkpoint(Path(wan.weight("t5").location)) as checkpoint:
        return device_bytes(checkpoint, component, policies_within(policies, component), dtype=dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("policies", QUANTISING, ids=lambda policies: policies[0].kind if policies else "plain")
def test_it_is_what_the_loaded_encoder_takes(
    policies: tuple[MemoryPolicy, ...], layout: WanFiles, files: dict[str, Wan]
) -> None:
    wan = files[layout]
    memory = (TextEncoderMemory(policies=policies),) if policies else ()
    within = policies_within(memory, wan.component("t5"))

    with loaded(wan.codec(), wan.component("t5"), within, device=CPU, dtype=torch.bfloat16) as encoder:
        taken = sum(parameter.nbytes for parameter in encoder.parameters())

    assert foreseen(wan, *memory) == taken


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_swap_leaves_the_table_and_all_but_its_slots_on_the_host(layout: WanFiles, tmp_path: Path) -> None:
    wan = tiny_wan(tmp_path, layout=layout)
    with loaded(wan.codec(), wan.component("t5"), (), device=CPU, dtype=torch.float32) as encoder:
        blocks = list(encoder.get_submodule("encoder.encoder.block").children())
        block = sum(p.nbytes for p in blocks[0].parameters() if p.ndim > 1)
        table = encoder.get_parameter("encoder.shared.weight").nbytes

    plain = foreseen(wan, dtype=torch.float32)
    swapped = foreseen(wan, TextEncoderMemory(policies=(BlockSwap(blocks=1),)), dtype=torch.float32)

    assert len(blocks) == 2
    assert block > 0
    assert plain - swapped == table  # of two blocks one streams through a slot of its own size
