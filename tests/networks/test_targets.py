from __future__ import annotations

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musubi.core.errors import ConfigError
from musubi.networks.adapters import AdapterSet
from musubi.networks.lora import LoRA
from musubi.networks.targets import Targets
from tests.networks.small import KEYS, LAYOUT, Small, make_set

NAMES = ("embed", "blocks.0.attn.q", "blocks.0.ffn.0", "blocks.1.attn.q", "blocks.1.ffn.0")
DEFAULT = (r"blocks\..*",)
PRESETS = {"attention": (r".*\.attn\..*",), "mlp": (r".*\.ffn\..*",)}


def test_the_default_set_is_chosen_in_the_models_order() -> None:
    assert Targets().choose(NAMES, default=DEFAULT) == NAMES[1:]


def test_exclude_narrows_and_include_extends() -> None:
    targets = Targets(include=("embed",), exclude=(r".*\.ffn\..*",))

    assert targets.choose(NAMES, default=DEFAULT) == ("embed", "blocks.0.attn.q", "blocks.1.attn.q")


def test_include_wins_over_exclude() -> None:
    targets = Targets(include=(r"blocks\.1\.attn\.q",), exclude=(".*",))

    assert targets.choose(NAMES, default=DEFAULT) == ("blocks.1.attn.q",)


def test_a_pattern_must_match_the_whole_name() -> None:
    with pytest.raises(ConfigError, match="matches no module"):
        Targets(exclude=(r"blocks\.0",)).choose(NAMES, default=DEFAULT)


def test_every_idle_pattern_is_named_with_the_nearest_module() -> None:
    with pytest.raises(ConfigError) as caught:
        Targets(include=("emded",), exclude=(r"blocks\.0\.attn\.k",)).choose(NAMES, default=DEFAULT)

    assert [issue.path for issue in caught.value.issues] == ["include[0]", "exclude[0]"]
    assert "'embed'" in str(caught.value)
    assert "'blocks.0.attn.q'" in str(caught.value)


def test_nothing_left_to_adapt_is_an_error() -> None:
    with pytest.raises(ConfigError, match="leaves none of 5 modules"):
        Targets(exclude=(".*",)).choose(NAMES, default=DEFAULT)


def test_an_invalid_pattern_is_named_where_it_stands() -> None:
    with pytest.raises(ConfigError, match=r"targets\.exclude: \[0\] '\(' is not a regular expression"):
        LoRA.from_dict({"targets": {"exclude": ["("]}})


def test_a_preset_takes_the_place_of_the_default_set() -> None:
    targets = Targets(preset="attention", include=("embed",), exclude=(r"blocks\.1\..*",))

    assert targets.choose(NAMES, default=DEFAULT, presets=PRESETS) == ("embed", "blocks.0.attn.q")


def test_an_unknown_preset_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'atention'.*did you mean 'attention'.*there are attention, mlp"):
        Targets(preset="atention").choose(NAMES, default=DEFAULT, presets=PRESETS)


def test_an_architecture_without_presets_says_so() -> None:
    with pytest.raises(ConfigError, match="this architecture has none"):
        make_set(Small(), LoRA(targets=Targets(preset="attention")))


def test_adapters_are_made_for_a_preset_of_the_architectures() -> None:
    layout = attrs.evolve(LAYOUT, presets={"fused": (r".*\.qk",)})
    network, generator = LoRA(targets=Targets(preset="fused")), torch.Generator()

    adapters = AdapterSet.create(network, Small(), keys=KEYS, layout=layout, generator=generator)

    assert adapters.names == ("blocks.0.attn.qk", "blocks.1.attn.qk")


@given(excluded=st.sets(st.sampled_from(NAMES[1:]), max_size=3), included=st.sets(st.sampled_from(NAMES)))
def test_whole_names_choose_exactly_themselves(excluded: set[str], included: set[str]) -> None:
    targets = Targets(exclude=tuple(excluded), include=tuple(included))

    chosen = targets.choose(NAMES, default=DEFAULT)

    assert set(chosen) == (set(NAMES[1:]) - excluded) | included
