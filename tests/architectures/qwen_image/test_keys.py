from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi.architectures.qwen_image.facts import DitFacts
from musubi.architectures.qwen_image.keys import DIT, renumbered
from musubi.architectures.qwen_image.transformer import empty_transformer
from tests.architectures.qwen_image import published
from tests.architectures.wan.fakes import header_only


@pytest.mark.parametrize("blocks", [range(60), (0, 1, 5, 40)], ids=["whole", "pruned"])
def test_every_tensor_of_the_published_checkpoint_has_its_place(blocks: tuple[int, ...] | range) -> None:
    shapes = published.transformer(blocks=blocks)
    facts = DitFacts.of(header_only(shapes))
    keys = renumbered(facts.blocks) if facts.pruned else DIT

    model = empty_transformer(facts)

    assert len(shapes) == 13 + 32 * len(blocks)
    assert {keys.to_library(n)[0].name: s for n, s in shapes.items()} == {
        n: p.shape for n, p in model.named_parameters()
    }


@given(blocks=st.sets(st.integers(0, 99), min_size=1, max_size=12), block=st.data())
def test_renumbering_is_undone(blocks: set[int], block: st.DataObject) -> None:
    number = block.draw(st.sampled_from(sorted(blocks)))
    name = f"transformer_blocks.{number}.attn.to_q.weight"
    keys = renumbered(list(blocks))

    (found,) = keys.to_library(name)

    assert found.name == f"transformer_blocks.{sorted(blocks).index(number)}.attn.to_q.weight"
    assert keys.to_original(found.name)[0] == name
