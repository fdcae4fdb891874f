from __future__ import annotations

import torch
from torch import nn

from musubi.architectures.flux_kontext.facts import DitFacts
from musubi.architectures.flux_kontext.keys import DIT
from musubi.architectures.flux_kontext.transformer import empty_transformer
from tests.architectures.flux_kontext import published
from tests.architectures.wan.fakes import header_only


def test_the_published_checkpoint_maps_completely_and_back() -> None:
    shapes = published.transformer()

    model = empty_transformer(DitFacts.of(header_only(shapes)))

    assert len(shapes) == 780
    assert len(list(model.parameters())) == 1160
    _assert_bijection(shapes, model)


def test_a_model_without_guidance_maps_completely_and_back() -> None:
    shapes = published.transformer(double=2, single=3, guided=False)

    _assert_bijection(shapes, empty_transformer(DitFacts.of(header_only(shapes))))


def test_names_of_one_parameter_stand_for_themselves() -> None:
    (found,) = DIT.to_library("double_blocks.3.img_attn.norm.query_norm.scale")

    assert found.name == "transformer_blocks.3.attn.norm_q.weight"


def test_groups_come_in_the_original_s_order_block_by_block() -> None:
    model = empty_transformer(DitFacts(num_double=12, num_single=2))
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]

    for shuffled in (linears, linears[::-1]):
        names = list(DIT.groups(shuffled))
        assert names[:2] == ["img_in", "time_in.in_layer"]
        assert names[8:18] == [
            f"double_blocks.0.{stream}_{module}"
            for stream in ("img", "txt")
            for module in ("mod.lin", "attn.qkv", "attn.proj", "mlp.0", "mlp.2")
        ]
        blocks = dict.fromkeys(int(n.split(".")[1]) for n in names if n.startswith("double"))
        assert list(blocks) == list(range(12))
        assert names[-5:] == [
            "single_blocks.1.linear1",
            "single_blocks.1.linear2",
            "single_blocks.1.modulation.lin",
            "final_layer.linear",
            "final_layer.adaLN_modulation.1",
        ]


def _assert_bijection(shapes: published.Shapes, model: nn.Module) -> None:
    library = {name: parameter.shape for name, parameter in model.named_parameters()}
    joined: dict[str, torch.Size] = {}
    for name in shapes:
        parts = [library.pop(piece.name) for piece in DIT.to_library(name)]
        joined[name] = torch.Size((sum(part[0] for part in parts), *parts[0][1:]))
    assert not library
    assert joined == shapes
    assert {DIT.to_original(name)[0] for name, _ in model.named_parameters()} == set(shapes)
