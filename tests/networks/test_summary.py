from __future__ import annotations

import numpy as np
import pytest

from musubi.networks.summary import ModuleNorm, summarised
from tests.networks.weighted import lora

MODULES = {
    "blocks.0.self_attn.q": lora(rank=2, seed=1),
    "blocks.0.ffn.0": lora(rank=4, alpha=4.0, seed=2),
    "blocks.1.self_attn.q": lora(rank=3, seed=3),
    "img_in": lora(seed=4),
}


def test_like_modules_of_all_blocks_are_one_group() -> None:
    groups = summarised(MODULES).groups

    assert {name: len(modules) for name, modules in groups.items()} == {
        "blocks.{}.self_attn.q": 2,
        "blocks.{}.ffn.0": 1,
        "img_in": 1,
    }


@pytest.mark.parametrize(
    ("name", "group", "block"),
    [
        ("blocks.12.ffn.2", "blocks.{}.ffn.2", "blocks.12"),
        ("lora_blocks_12_ffn_2", "lora_blocks_{}_ffn_2", "lora_blocks_12"),
        ("proj_in", "proj_in", "proj_in"),
        ("w1.q2", "w1.q2", "w1.q2"),
    ],
)
def test_only_numbers_that_stand_alone_are_those_of_blocks(name: str, group: str, block: str) -> None:
    module = ModuleNorm(name, 1, 1.0, 0.0)

    assert (module.group, module.block) == (group, block)


def test_the_table_has_counts_ranks_and_norms() -> None:
    summary = summarised(MODULES)

    lines = str(summary).splitlines()

    norms = [float(MODULES[f"blocks.{i}.self_attn.q"].delta().norm()) for i in (0, 1)]
    assert lines[0].split() == ["modules", "count", "rank", "alpha", "mean", "norm", "largest"]
    assert lines[1].split() == ["blocks.{}.self_attn.q", "2", "2-3", "2", f"{sum(norms) / 2:.4g}", f"{max(norms):.4g}"]
    assert len({len(line) for line in lines}) == 1
    assert "blocks.{}.ffn.0" in summary._repr_html_()


def test_the_plot_has_one_line_for_each_group_over_the_blocks() -> None:
    figure = summarised(MODULES).plot()

    (axes,) = figure.axes
    lines = {line.get_label(): np.asarray(line.get_ydata()) for line in axes.lines}
    assert set(lines) == {"blocks.{}.self_attn.q", "blocks.{}.ffn.0", "img_in"}
    assert len(lines["blocks.{}.self_attn.q"]) == 2
