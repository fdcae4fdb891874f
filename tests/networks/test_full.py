from __future__ import annotations

import copy

import pytest
import torch
from torch import Generator, nn

from musubi import ConfigError, FullFineTune, Targets, Wan
from musubi.architecture import Architecture, Expert
from musubi.networks.full_weights import FullWeights
from musubi.networks.trained import Trained
from musubi.testing.checkpoints import tiny_wan
from musubi.testing.toy import Toy


def loaded(architecture: Architecture) -> nn.Module:
    cpu = torch.device("cpu")
    return architecture.denoiser().load(architecture.experts[0], device=cpu, dtype=torch.float32)


def prepared(network: FullFineTune, model: nn.Module, architecture: Architecture) -> Trained:
    return network.prepare(model, keys=architecture.keys, layout=architecture.layout, generator=Generator())


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Wan:
    return tiny_wan(tmp_path_factory.mktemp("wan"))


@pytest.mark.parametrize("which", ["toy", "wan"])
def test_every_parameter_is_trained_once_and_without_being_copied(which: str, wan: Wan) -> None:
    architecture: Architecture = Toy() if which == "toy" else wan
    model = loaded(architecture)

    trained = prepared(FullFineTune(), model, architecture)

    (group,) = trained.groups()
    assert [id(parameter) for parameter in group.parameters] == [id(parameter) for parameter in model.parameters()]
    assert set(trained.base_weights()) == {name for name, _ in model.named_parameters()}


def test_patterns_on_original_names_narrow_what_is_trained() -> None:
    toy, targets = Toy(), Targets(exclude=(".*",), include=(r"blocks\.0\.attn\.qkv", "patch_out"))
    network = FullFineTune(targets=targets)

    trained = prepared(network, loaded(toy), toy)

    parts = [f"blocks.0.attn.to_{part}" for part in "qkv"]
    assert {name.rpartition(".")[0] for name in trained.base_weights()} == {*parts, "patch_out"}
    count = sum(weight.numel() for weight in trained.base_weights().values())
    assert network.trainable(toy.denoiser().empty(Expert()), keys=toy.keys, layout=toy.layout) == count
    assert network.title == "some weights in float32"


def test_a_parameter_of_a_block_belongs_to_the_module_of_its_original_name(wan: Wan) -> None:
    trained = prepared(FullFineTune(targets=Targets(exclude=(r"blocks\.\d+", "head"))), loaded(wan), wan)

    left = {"blocks.0.scale_shift_table", "blocks.1.scale_shift_table", "scale_shift_table"}
    assert left.isdisjoint(trained.base_weights())
    assert "blocks.0.attn1.to_q.weight" in trained.base_weights()


def test_a_pattern_that_matches_nothing_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"matches no module.*patch_out"):
        prepared(FullFineTune(targets=Targets(exclude=("patch_ot",))), loaded(Toy()), Toy())


def test_gradients_are_asked_for_inside_the_block_alone() -> None:
    model = loaded(Toy())
    trained = prepared(FullFineTune(targets=Targets(exclude=("patch_in",))), model, Toy())

    with trained.attached(model):
        asked = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        parameter = model.get_parameter("patch_out.bias")
        parameter.sum().backward()

    assert asked == set(trained.base_weights())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert parameter.grad is None


def test_a_change_of_one_number_is_an_effect_and_taking_it_back_is_none() -> None:
    model = loaded(Toy()).to(torch.bfloat16)
    trained = prepared(FullFineTune(), model, Toy())
    weight = model.get_parameter("blocks.1.feed_forward.weight").detach()
    before = weight[3, 4].clone()

    effects: list[bool] = []
    for value in (before, torch.nextafter(before, before + 1), before):
        weight[3, 4] = value
        effects.append(not trained.zero_effect)

    assert effects == [False, True, False]


def test_the_base_model_cannot_be_had_back() -> None:
    trained = prepared(FullFineTune(), loaded(Toy()), Toy())

    with pytest.raises(ConfigError, match="as it was before is gone"), trained.switched_off():
        pass


def test_a_state_restores_every_number(wan: Wan) -> None:
    model, other = loaded(wan), loaded(wan)
    for parameter in other.parameters():
        parameter.detach().add_(1)
    state = copy.deepcopy(prepared(FullFineTune(), other, wan).state_dict())

    trained = prepared(FullFineTune(), model, wan)
    trained.load_state_dict(state)

    assert all(torch.equal(*pair) for pair in zip(model.parameters(), other.parameters(), strict=True))
    assert set(state) == {f"model.{name}" for name, _ in model.named_parameters()}


def test_modules_may_be_called_as_the_networks_own_attributes() -> None:
    model = nn.ModuleDict({"groups": nn.Linear(2, 2), "weights": nn.Linear(2, 2)})

    trained = FullWeights(dict(model.named_parameters()))

    assert set(trained.state_dict()) == {f"model.{name}" for name, _ in model.named_parameters()}


@pytest.mark.parametrize("kept", ["float32", "bfloat16"])
def test_weights_are_kept_in_the_type_that_is_asked_for(kept: str) -> None:
    network = FullFineTune(weights=kept)  # type: ignore[arg-type]

    assert network.weights_dtype(torch.bfloat16) == getattr(torch, kept)


def test_weights_are_never_kept_in_less_than_the_model_computes_in() -> None:
    with pytest.raises(ConfigError, match='precision="bfloat16"'):
        FullFineTune(weights="bfloat16").weights_dtype(torch.float32)


def test_the_network_survives_toml() -> None:
    network = FullFineTune(weights="bfloat16", targets=Targets(exclude=("patch_in",)))

    assert FullFineTune.from_toml(network.to_toml()) == network
