from __future__ import annotations

import logging
from pathlib import Path

import attrs
import pytest
import torch
from torch import Tensor, nn

from musubi.architecture import CaptionLengths, Models, Stage
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


def _still(name: str, seed: int) -> Sample:
    sample = _sample(name, seed, caption=f"a cat and {'x' * seed}")
    assert sample.pixels is not None
    return attrs.evolve(sample, pixels=sample.pixels[:1])


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


@pytest.mark.parametrize("stage", [LATENTS, TEXT], ids=lambda stage: stage.name)
def test_each_stage_runs_its_model_once_for_all_samples(stage: Stage, codec: WanCodec) -> None:
    models, (component,) = _models(codec), stage.components
    calls: list[str] = []
    for module in models[component].modules():
        if type(module).__name__ in {"WanEncoder3d", "UMT5EncoderModel"}:
            module.register_forward_hook(lambda module, *_: calls.append(type(module).__name__))
    samples = [_still(str(seed), seed) for seed in range(4)]

    codec.encode(stage, models, samples)

    assert len(calls) == 1


def test_all_samples_without_pixels_are_named(codec: WanCodec, models: Models) -> None:
    with pytest.raises(DataError) as caught:
        codec.encode(LATENTS, models, [_sample("there", 1), Sample(name="lost"), Sample(name="gone")])

    assert [issue.path for issue in caught.value.issues] == ["lost", "gone"]


def test_a_caption_that_is_cut_is_told_once(codec: WanCodec, models: Models, caplog: pytest.LogCaptureFixture) -> None:
    long, other = "x" * 700, "y" * 600
    samples = [_sample("short", 1), _sample("long", 1, long), _sample("again", 1, long), _sample("other", 1, other)]

    with caplog.at_level(logging.WARNING):
        codec.encode(TEXT, models, samples)

    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
        "long: the caption has 702 tokens",
        "other: the caption has 602 tokens",
    ]


def test_captions_are_counted_without_the_text_encoder(tmp_path: Path) -> None:
    codec = tiny_wan(tmp_path).with_weights(t5=tmp_path / "not downloaded yet.safetensors").codec()

    lengths = codec.caption_lengths(["a cat", "", "x" * 700])

    assert lengths == CaptionLengths(tokens=(7, 1, 702), limit=512)
    assert codec.caption_lengths([]) == CaptionLengths(tokens=(), limit=512)


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
