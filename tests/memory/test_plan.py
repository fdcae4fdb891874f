from __future__ import annotations

import attrs
import pytest
import torch
from torch import nn

from musubi import BlockSwap, FP8Scaled, GradientCheckpointing
from musubi.core.errors import ConfigError
from musubi.memory.plan import Plan, plan
from musubi.memory.policy import MemoryPolicy
from tests.memory import tiny

BUCKETS = {"832x480 x 1": (16, 1, 60, 104), "832x480 x 81": (16, 21, 60, 104)}


@pytest.fixture(scope="module")
def full_size() -> nn.Module:
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    with torch.device("meta"):
        model: nn.Module = WanTransformer3DModel(
            num_attention_heads=40, attention_head_dim=128, ffn_dim=13824, num_layers=40
        )
    return model


def _plan(model: nn.Module, *policies: MemoryPolicy, training: bool = True) -> Plan:
    return plan(
        model,
        layout=tiny.LAYOUT,
        keys=tiny.KEYS,
        geometry=tiny.WAN.geometry,
        buckets=BUCKETS,
        batch_size=1,
        trainable=10_000_000,
        policies=policies,
        training=training,
        dtype=torch.bfloat16,
        title="a model of 14B",
    )


def test_weights_are_counted_exactly(full_size: nn.Module) -> None:
    counted = sum(p.numel() * 2 for p in full_size.parameters()) + sum(b.numel() * 2 for b in full_size.buffers())

    assert {row.weights for row in _plan(full_size).rows} == {counted}


def test_a_quantised_block_takes_a_byte_and_a_scale_for_64(full_size: nn.Module) -> None:
    linears = sum(p.numel() for n, p in full_size.named_parameters() if n.startswith("blocks.") and p.ndim == 2)

    saved = _plan(full_size).rows[0].weights - _plan(full_size, FP8Scaled()).rows[0].weights

    assert saved == linears * 2 - linears - linears * 2 // 64


def test_swapped_blocks_move_to_the_host_but_for_two_slots(full_size: nn.Module) -> None:
    resident, swapped = _plan(full_size), _plan(full_size, BlockSwap(blocks=20))
    block = sum(p.numel() * 2 for p in full_size.get_submodule("blocks.0").parameters() if p.ndim >= 2)

    assert swapped.pinned == 20 * block
    assert resident.rows[0].weights - swapped.rows[0].weights == 18 * block
    assert swapped.host >= resident.rows[0].weights
    assert resident.pinned == 0


def test_checkpointing_leaves_a_boundary_for_each_block(full_size: nn.Module) -> None:
    everything, boundaries = _plan(full_size).rows[1], _plan(full_size, GradientCheckpointing()).rows[1]
    one_block = everything.activations // 40

    assert boundaries.activations == pytest.approx(one_block + 40 * 32760 * 5120 * 2, rel=1e-6)


def test_generation_needs_no_optimizer_and_one_block_of_activations(full_size: nn.Module) -> None:
    training, generation = _plan(full_size), _plan(full_size, training=False)

    assert generation.rows[0].trained == generation.disk == 0
    assert generation.rows[0].activations == training.rows[0].activations // 40


def test_the_model_is_left_as_it_is(full_size: nn.Module) -> None:
    before = {name: type(module) for name, module in full_size.named_modules()}

    _plan(full_size, FP8Scaled())

    assert {name: type(module) for name, module in full_size.named_modules()} == before


def test_policies_that_do_not_fit_are_refused(full_size: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"memory\[0\]\.blocks: must be between 1 and 39 for a model of 14B, got 40"):
        _plan(full_size, BlockSwap(blocks=40))


def test_the_estimate_is_near_what_autograd_keeps_in_a_real_block() -> None:
    model = tiny.transformer()
    trained = tiny.adapters(model)
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *trained.parameters()]}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    alive: list[torch.Tensor] = []
    with trained.attached(model), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = tiny.forward(model)
    predicted = plan(
        model,
        layout=tiny.LAYOUT,
        keys=tiny.KEYS,
        geometry=tiny.WAN.geometry,
        buckets={"tiny": (4, 2, 4, 4)},
        batch_size=1,
        trainable=1,
        policies=(),
        training=True,
        dtype=torch.float32,
    )

    assert output.requires_grad
    assert 0.5 < predicted.rows[0].activations / sum(kept.values()) < 2


def test_the_text_is_an_aligned_table_with_its_assumptions(full_size: nn.Module) -> None:
    text = str(_plan(full_size, FP8Scaled(), GradientCheckpointing(), BlockSwap(blocks=20)))
    lines = text.splitlines()

    assert lines[0] == "a model of 14B, training, bfloat16, batch size 1"
    assert len({len(line) for line in lines[2:5]}) == 1
    assert lines[4].startswith("832x480 x 81  32,760  7.86 GiB")
    assert "  - adapters in float32 with AdamW: 16 bytes for each of 10,000,000 parameters" in lines


def test_the_card_escapes_and_names_every_bucket(full_size: nn.Module) -> None:
    card = attrs.evolve(_plan(full_size), title="<b>")._repr_html_()

    assert "&lt;b&gt;" in card
    assert all(bucket in card for bucket in BUCKETS)


def test_the_peak_is_the_largest_bucket(full_size: nn.Module) -> None:
    peak = _plan(full_size).peak

    assert peak is not None
    assert peak.bucket == "832x480 x 81"
    assert peak.total == peak.weights + peak.activations + peak.trained
