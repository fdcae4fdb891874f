from __future__ import annotations

import torch
from torch import nn

from musubi.architectures.hunyuan_video.facts import DitFacts
from musubi.architectures.hunyuan_video.keys import DIT
from musubi.architectures.hunyuan_video.transformer import empty_transformer
from tests.architectures.hunyuan_video import published
from tests.architectures.wan.fakes import header_only


def test_the_published_checkpoint_maps_completely_and_back() -> None:
    shapes = published.transformer()

    model = empty_transformer(DitFacts.of(header_only(shapes)))

    assert len(shapes) == 856
    assert len(list(model.parameters())) == 1264
    _assert_bijection(shapes, model)


def test_models_of_other_inputs_map_completely_and_back() -> None:
    for shapes in (published.transformer(inputs=32, double=2, single=3), published.transformer(double=1, guided=False)):
        _assert_bijection(shapes, empty_transformer(DitFacts.of(header_only(shapes))))


def test_groups_come_in_the_original_s_order_block_by_block() -> None:
    model = empty_transformer(DitFacts(num_double=12, num_single=2))
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]

    for shuffled in (linears, linears[::-1]):
        names = list(DIT.groups(shuffled))
        assert names[:3] == ["txt_in.input_embedder", "txt_in.t_embedder.mlp.0", "txt_in.t_embedder.mlp.2"]
        assert names[5:7] == [f"txt_in.individual_token_refiner.blocks.0.self_attn_{name}" for name in ("qkv", "proj")]
        double = [name for name in names if name.startswith("double_blocks.")]
        assert double[:10] == [
            f"double_blocks.0.{stream}_{module}"
            for stream in ("img", "txt")
            for module in ("mod.linear", "attn_qkv", "attn_proj", "mlp.fc1", "mlp.fc2")
        ]
        assert list(dict.fromkeys(int(name.split(".")[1]) for name in double)) == list(range(12))
        assert names[-5:] == [
            "single_blocks.1.linear1",
            "single_blocks.1.linear2",
            "single_blocks.1.modulation.linear",
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
