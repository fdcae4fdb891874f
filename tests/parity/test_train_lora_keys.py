"""The same modules are adapted, under the same names and in the same order, as by the reference."""

from __future__ import annotations

import ast
from typing import Any

import pytest
import torch
from torch import nn

from musubi.architectures.wan.denoiser import empty_transformer
from musubi.architectures.wan.facts import DitFacts
from musubi.architectures.wan.spec import Wan
from musubi.core.errors import ConfigError
from musubi.networks.adapters import AdapterSet
from musubi.networks.groups import groups_of, targeted
from musubi.networks.keys import flat
from musubi.networks.lora import LoRA
from musubi.networks.network import Targets
from tests.parity.cases import vector, vector_stems

CASES = [case for stem in vector_stems("train_lora_keys") for case in vector(stem)["cases"]]
WAN = Wan.t2v_14b()
_SIZES = {"1.3B": (1536, 8960, 12, 30), "14B": (5120, 13824, 40, 40), "5B": (3072, 14336, 24, 30)}


def _named(cases: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case["id"] for case in cases])


@_named([case for case in CASES if case.get("kind") != "full_size_counts"])
def test_train_lora_keys_modules_equal_the_reference(case: dict[str, Any]) -> None:
    _skip_what_is_not_ours(case)
    model = _tiny(case["model_config"])
    targets = _targets(case["network_args"])
    idle = [p for p in (*targets.include, *targets.exclude) if not _matches_something(p, model)]
    if idle:
        with pytest.raises(ConfigError, match="matches no module"):
            targeted(model, targets, keys=WAN.keys, layout=WAN.layout)
        targets = Targets(
            include=tuple(p for p in targets.include if p not in idle),
            exclude=tuple(p for p in targets.exclude if p not in idle),
        )

    adapters = AdapterSet.create(
        LoRA(rank=4, alpha=2, targets=targets),
        model,
        keys=WAN.keys,
        layout=WAN.layout,
        generator=torch.Generator().manual_seed(0),
    )

    # The reference never looks outside the blocks; here `include` can reach the embedders and the head, too.
    weights = {n: w for n, w in adapters.to_file().modules.items() if n.startswith("blocks.") or not targets.include}
    found = [[f"lora_unet_{flat(n)}", n, w.down.shape[1], w.up.shape[0]] for n, w in weights.items()]
    assert found == case["modules"]
    _check_tensors(adapters, case)


@_named([case for case in CASES if case.get("kind") == "full_size_counts"])
def test_train_lora_keys_full_models_have_the_references_number_of_weights(case: dict[str, Any]) -> None:
    if not case["arch"].startswith("wan"):
        pytest.skip("arrives with its architecture (issues 6 and 7)")
    model = _full(case["arch"])

    groups = targeted(model, Targets(), keys=WAN.keys, layout=WAN.layout)

    assert len(groups) == case["n_lora_modules"]
    assert sum(group.parameters(32) for group in groups) == case["n_trainable_rank32"]


def _skip_what_is_not_ours(case: dict[str, Any]) -> None:
    if not case["arch"].startswith("wan"):
        pytest.skip("arrives with its architecture (issues 6 and 7)")
    if "head" not in case["versions"]:
        pytest.skip("v0.2.13 matches prefixes against its own documentation (spec/training.md 3.3)")


def _check_tensors(adapters: AdapterSet, case: dict[str, Any]) -> None:
    if "first_keys" not in case or any(not name.startswith("blocks.") for name in adapters.names):
        return
    tensors = adapters.to_file().tensors("reference")
    listed = [[name, list(tensor.shape), str(tensor.dtype)] for name, tensor in tensors.items()]
    assert listed[: len(case["first_keys"])] == case["first_keys"]
    assert len(tensors) == case["n_keys"]
    assert sum(parameter.numel() for parameter in adapters.parameters()) == case["n_trainable"]


def _targets(arguments: dict[str, str]) -> Targets:
    lists = {name: tuple(ast.literal_eval(arguments.get(f"{name}_patterns", "[]"))) for name in ("include", "exclude")}
    return Targets(include=lists["include"], exclude=lists["exclude"])


def _matches_something(pattern: str, model: nn.Module) -> bool:
    try:
        Targets(include=(pattern,)).choose(groups_of(model, WAN.keys), default=())
    except ConfigError:
        return False
    return True


def _tiny(config: dict[str, Any]) -> nn.Module:
    image = config["model_version"] == "2.1" and config["model_type"] != "t2v"
    return empty_transformer(
        DitFacts(
            dim=config["dim"],
            ffn_dim=config["ffn_dim"],
            num_heads=config["num_heads"],
            num_layers=config["num_layers"],
            in_channels=config["in_dim"],
            out_channels=config["out_dim"],
            text_dim=config["text_dim"],
            freq_dim=config["freq_dim"],
            patch=(1, 2, 2),
            image_dim=1280 if image else None,
            image_tokens=514 if config["model_type"] == "flf2v" else None,
            image_keys=image,
        )
    )


def _full(arch: str) -> nn.Module:
    size = next(size for name, size in _SIZES.items() if arch.removesuffix("-FC").endswith(name))
    two_point_two = arch.endswith(("A14B", "5B"))
    # The Fun-Control models attend to an image even where they are called text to video.
    image = not two_point_two and (arch.endswith("-FC") or not arch.startswith(("wan_t2v", "wan_t2i")))
    dim, ffn_dim, num_heads, num_layers = size
    facts = DitFacts(
        dim=dim,
        ffn_dim=ffn_dim,
        num_heads=num_heads,
        num_layers=num_layers,
        in_channels=16,
        out_channels=16,
        text_dim=4096,
        freq_dim=256,
        patch=(1, 2, 2),
        image_dim=1280 if image else None,
        image_tokens=514 if "flf2v" in arch else None,
        image_keys=image,
    )
    return empty_transformer(facts)
