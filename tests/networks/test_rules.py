from __future__ import annotations

import pytest
import torch

from musubi import ConfigError, LoRA, Rule
from musubi.networks.rules import Sizes, sizes
from tests.networks.small import NAMES, Small, make_set


def test_a_rule_changes_what_it_names_and_the_last_one_wins() -> None:
    rules = (Rule(modules=r".*qk", rank=4), Rule(modules=r"blocks\.1\..*", rank=2, alpha=6, rate=0.5))

    found = {name: sizes(rules, name, rank=16, strength=0.5) for name in NAMES}

    assert found["blocks.0.attn.qk"] == Sizes(rank=4, alpha=2.0)
    assert found["blocks.0.attn.proj_out"] == Sizes(rank=16, alpha=8.0)
    assert found["blocks.1.attn.qk"] == Sizes(rank=2, alpha=6.0, rate=0.5)


def test_each_value_is_the_last_rules_that_has_it_whatever_the_others_say() -> None:
    rules = (Rule(modules=".*", rank=8, alpha=6), Rule(modules=".*", rate=0.5), Rule(modules=".*", rank=4))

    assert sizes(rules, "blocks.0.attn.qk", rank=16, strength=1.0) == Sizes(rank=4, alpha=6.0, rate=0.5)


def test_adapters_obey_rules_and_tell_their_rates() -> None:
    network = LoRA(rank=4, plus_ratio=8, rules=(Rule(modules=r"blocks\.1\..*", rank=2, rate=0.25),))

    adapters = make_set(Small(), network)

    ranks = {name: weights.rank for name, weights in adapters.to_file().modules.items()}
    assert ranks == {name: 2 if "blocks.1" in name else 4 for name in NAMES}
    told = {group.name: (group.rate, len(group.parameters)) for group in adapters.groups()}
    assert told == {"unet": (1.0, 2), "unet plus": (8.0, 2), "unet x0.25": (0.25, 2), "unet x0.25 plus": (2.0, 2)}
    grouped = [id(parameter) for group in adapters.groups() for parameter in group.parameters]
    assert sorted(grouped) == sorted(id(parameter) for parameter in adapters.parameters())


def test_a_rule_that_no_adapted_module_obeys_is_named_with_what_is_near() -> None:
    with pytest.raises(ConfigError, match=r"rules\[0\]\.modules: 'blocks.0.attn.kq' matches no module.*attn.qk"):
        make_set(Small(), LoRA(rules=(Rule(modules="blocks.0.attn.kq", rank=2),)))


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"modules: '\(' is not a regular expression"):
        Rule(modules="(")


def test_a_set_without_rules_learns_at_one_rate() -> None:
    (group,) = make_set(Small()).groups()

    assert (group.name, group.rate) == ("unet", 1.0)
    assert all(isinstance(parameter, torch.nn.Parameter) for parameter in group.parameters)
