from __future__ import annotations

from musubi.architectures.framepack.facts import DitFacts
from musubi.architectures.framepack.keys import DIT
from musubi.architectures.framepack.transformer import empty_transformer
from tests.architectures.framepack import published
from tests.architectures.wan.fakes import header_only


def test_every_tensor_of_the_published_checkpoint_has_its_place() -> None:
    shapes = published.transformer()

    model = empty_transformer(DitFacts.of(header_only(shapes)))

    assert len(shapes) == 1274
    assert {DIT.to_library(n)[0].name: s for n, s in shapes.items()} == {
        n: p.shape for n, p in model.named_parameters()
    }
