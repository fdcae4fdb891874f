"""The same modules are adapted, under the same names and in the same order, as by the reference."""

from __future__ import annotations

from typing import Any

import pytest

from musubi import FluxKontext, FramePack, HunyuanVideo, QwenImage, Wan
from musubi.architecture import Architecture
from musubi.core.errors import ConfigError
from musubi.networks.adapters import AdapterSet
from musubi.networks.groups import targeted
from musubi.networks.keys import flat
from musubi.networks.lora import LoRA
from musubi.networks.targets import Targets
from tests.parity.cases import vector, vector_stems
from tests.parity.full_wan import full_wan
from tests.parity.lora_arguments import BLOCKS, create_adapters, targets_of, without_idle
from tests.parity.tiny_models import tiny_model

CASES = [case for stem in vector_stems("train_lora_keys") for case in vector(stem)["cases"]]
PUBLISHED: dict[str, Architecture] = {
    "hunyuan_video": HunyuanVideo.t2v(),
    "framepack": FramePack.inverted(),
    "flux_kontext": FluxKontext.dev(),
    "qwen_image": QwenImage.text_to_image(),
}


def _named(cases: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case["id"] for case in cases])


@_named([case for case in CASES if case.get("kind") != "full_size_counts"])
def test_train_lora_keys_modules_equal_the_reference(case: dict[str, Any]) -> None:
    if "head" not in case["versions"]:
        pytest.skip("v0.2.13 matches prefixes against its own documentation (spec/training.md 3.3)")
    tiny = tiny_model(case["arch"], case["model_config"])
    targets = without_idle(targets_of(case["network_args"], case["arch"]), tiny)

    network = LoRA(rank=4, alpha=2, targets=targets)

    if not case["n_modules"]:
        with pytest.raises(ConfigError, match="leaves none"):  # the reference trains nothing then
            create_adapters(network, tiny)
        return
    adapters = create_adapters(network, tiny)

    modules = {n: w for n, w in adapters.to_file().modules.items() if BLOCKS.match(n) or not targets.include}
    found = [[f"lora_unet_{flat(n)}", n, w.shape[1], w.shape[0]] for n, w in modules.items()]
    assert found == case["modules"]
    _check_tensors(adapters, case)


@_named([case for case in CASES if case.get("kind") == "full_size_counts"])
def test_train_lora_keys_full_models_have_the_references_number_of_weights(case: dict[str, Any]) -> None:
    if case["arch"].startswith("wan"):
        model = full_wan(case["arch"])
        groups = targeted(model, LoRA(), keys=Wan.t2v_14b().keys, layout=Wan.t2v_14b().layout)
        sizes = {group.original: (group.in_features, sum(group.rows)) for group, _ in groups}
    else:
        spec = PUBLISHED[case["arch"]]
        everything = spec.linears()
        chosen = Targets().choose(everything, default=spec.layout.adapters)
        sizes = {name: everything[name] for name in chosen}

    assert len(sizes) == case["n_lora_modules"]
    assert sum(32 * (inputs + outputs) for inputs, outputs in sizes.values()) == case["n_trainable_rank32"]


def _check_tensors(adapters: AdapterSet, case: dict[str, Any]) -> None:
    if "first_keys" not in case or any(not BLOCKS.match(name) for name in adapters.names):
        return
    tensors = adapters.to_file().tensors("reference")
    listed = [[name, list(tensor.shape), str(tensor.dtype)] for name, tensor in tensors.items()]
    assert listed[: len(case["first_keys"])] == case["first_keys"]
    assert len(tensors) == case["n_keys"]
    assert sum(parameter.numel() for parameter in adapters.parameters()) == case["n_trainable"]
