from __future__ import annotations

import pytest

from musubi.core.errors import ConfigError
from musubi.networks.lora import LoRA
from musubi.networks.network import Network, Targets

NAMES = ("embed", "blocks.0.attn.q", "blocks.0.ffn.0", "blocks.1.attn.q", "blocks.1.ffn.0")
DEFAULT = (r"blocks\..*",)


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


@pytest.mark.parametrize("values", [{"rank": 0}, {"alpha": 0.0}, {"alpha": -1.0}, {"dropout": 1.0}, {"rank": 2.5}])
def test_impossible_sizes_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        LoRA.from_dict(values)


def test_the_strength_does_not_depend_on_the_rank_unless_alpha_says_so() -> None:
    assert LoRA(rank=4).strength == LoRA(rank=64).strength == 1
    assert LoRA(rank=32, alpha=16).strength == 0.5


def test_a_network_survives_toml() -> None:
    lora = LoRA(rank=8, alpha=4.0, dropout=0.1, targets=Targets(exclude=(r".*\.ffn\..*",)))

    assert Network.from_toml(lora.to_toml()) == lora
