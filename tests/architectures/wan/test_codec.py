from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from musubi.architecture import Models
from musubi.architectures.wan.codec import WanCodec
from musubi.architectures.wan.spec import Wan
from musubi.batch import Sample
from musubi.core.errors import DataError
from musubi.testing.checkpoints import WanFiles, tiny_wan

CPU = torch.device("cpu")
LATENTS, TEXT = Wan.t2v_1_3b().stages


@pytest.fixture(scope="module")
def codec(tiny: Wan) -> WanCodec:
    return tiny.codec()


@pytest.fixture(scope="module")
def models(codec: WanCodec) -> Models:
    return _models(codec)


def _models(codec: WanCodec) -> dict[str, nn.Module]:
    return {name: codec.load(name, device=CPU, dtype=torch.float32) for name in ("vae", "t5")}


def _sample(name: str, seed: int, caption: str = "a cat") -> Sample:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (5, 32, 48, 3), generator=generator, dtype=torch.uint8)
    return Sample(name=name, caption=caption, pixels=pixels)


def test_all_layouts_encode_and_decode_the_same(tmp_path: Path) -> None:
    layouts: tuple[WanFiles, ...] = ("original", "original_pth", "diffusers")
    results: list[list[Tensor]] = []

    for layout in layouts:
        codec = tiny_wan(tmp_path / layout, layout=layout).codec()
        models = _models(codec)
        latents = codec.encode(LATENTS, models, [_sample("a", 1)])[0].tensors["latents"]
        embeddings = codec.encode(TEXT, models, [_sample("a", 1)])[0].tensors["varlen_t5"]
        results.append([latents, embeddings, codec.decode(models, latents[None])])

    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_a_stage_makes_one_entry_for_each_sample_in_their_order(codec: WanCodec, models: Models) -> None:
    samples = [_sample("b", 1, "a dog in the snow"), _sample("a", 2, "")]

    latents = codec.encode(LATENTS, models, samples)
    texts = codec.encode(TEXT, models, samples)

    assert [entry.name for entry in latents] == [entry.name for entry in texts] == ["b", "a"]
    assert {tuple(entry.tensors["latents"].shape) for entry in latents} == {(16, 2, 4, 6)}
    assert texts[1].tensors["varlen_t5"].shape == (1, 32)
    assert texts[0].key == texts[1].key


def test_what_is_cached_of_a_sample_does_not_depend_on_its_neighbours(codec: WanCodec, models: Models) -> None:
    samples = [_sample("a", 1, "a cat"), _sample("b", 2, "a much longer caption")]

    for stage in (LATENTS, TEXT):
        together = codec.encode(stage, models, samples)[0].tensors
        alone = codec.encode(stage, models, samples[:1])[0].tensors
        assert all(torch.equal(together[name], alone[name]) for name in together)


def test_a_sample_without_pixels_is_named(codec: WanCodec, models: Models) -> None:
    with pytest.raises(DataError, match="lost: has no pixels"):
        codec.encode(LATENTS, models, [Sample(name="lost")])


def test_a_caption_that_is_cut_is_reported(codec: WanCodec, models: Models, caplog: pytest.LogCaptureFixture) -> None:
    samples = [_sample("short", 1), _sample("long", 1, "x" * 700)]

    with caplog.at_level(logging.WARNING):
        codec.encode(TEXT, models, samples)

    assert "long: the caption has 702 tokens, all after the first 512 are ignored" in caplog.text
    assert "short" not in caplog.text.replace("shorten", "")


def test_identities_tell_components_and_contents_apart_but_not_places(tmp_path: Path) -> None:
    first, again, other = (tiny_wan(tmp_path / name, seed=seed) for name, seed in (("x", 0), ("y", 0), ("z", 1)))

    for component in ("vae", "t5"):
        assert first.codec().identity(component) == again.codec().identity(component)
        assert first.codec().identity(component) != other.codec().identity(component)
    assert first.codec().identity("vae") != first.codec().identity("t5")


def test_the_tokenizer_counts_for_the_text(tmp_path: Path) -> None:
    wan = tiny_wan(tmp_path)
    before = wan.codec().identity("t5")

    (tmp_path / "tokenizer" / "added_tokens.json").write_text("{}", encoding="utf-8")

    assert wan.codec().identity("t5") != before
