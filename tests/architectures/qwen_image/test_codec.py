from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import nn

from musubi import QwenImage
from musubi.architecture import Asked
from musubi.architectures.qwen_image.codec import QwenImageCodec
from musubi.architectures.qwen_image.vl import VisionLanguage, encode_texts
from musubi.batch import Sample
from musubi.core.errors import DataError, WeightsError
from musubi.testing.checkpoints import tiny_tokenizer
from musubi.testing.qwen_image import tiny_qwen_image

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> QwenImage:
    return tiny_qwen_image(tmp_path_factory.mktemp("qwen"), task="edit_2509")


@pytest.fixture(scope="module")
def codec(qwen: QwenImage) -> QwenImageCodec:
    return qwen.codec()


@pytest.fixture(scope="module")
def models(codec: QwenImageCodec) -> dict[str, nn.Module]:
    return {name: codec.load(name, device=CPU, dtype=torch.float32) for name in ("vae", "text_encoder")}


def picture(width: int, height: int, seed: int = 0) -> torch.Tensor:
    values = np.random.default_rng(seed).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    return torch.tensor(values)


def test_a_component_nobody_knows_is_refused(codec: QwenImageCodec) -> None:
    with pytest.raises(ValueError, match="no component to load is called 'dit'"):
        codec.load("dit", device=CPU, dtype=torch.float32)


def test_latents_of_each_picture_have_its_own_size(codec: QwenImageCodec, models: dict[str, nn.Module]) -> None:
    controls = {"control": (picture(64, 32), picture(32, 96))}
    sample = Sample(name="a", pixels=picture(48, 64), controls=controls)

    (entry,) = codec.encode(codec.spec.stages[0], models, [sample])

    assert {name: tuple(tensor.shape) for name, tensor in entry.tensors.items()} == {
        "latents": (16, 1, 8, 6),
        "latents_control_0": (16, 1, 4, 8),
        "latents_control_1": (16, 1, 12, 4),
    }


def test_a_request_shows_pictures_at_a_megapixel_unless_it_says_otherwise(
    codec: QwenImageCodec, models: dict[str, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("musubi.architectures.qwen_image.codec._AREA", 64 * 64)
    (stage,) = codec.spec.request_stages
    media = {"control": (picture(300, 75), picture(50, 50))}
    asked = Asked(size=(64, 64), frames=1, media=media)
    sized = Asked(size=(64, 64), frames=1, media=media, control_sizes=((32, 48), (16, 16)))

    usual, told = (codec.ask(stage, models, one) for one in (asked, sized))

    assert [tuple(tensor.shape) for tensor in usual.values()] == [(16, 1, 4, 16), (16, 1, 8, 8)]
    assert [tuple(tensor.shape) for tensor in told.values()] == [(16, 1, 6, 4), (16, 1, 2, 2)]


def test_the_token_of_pictures_in_a_caption_is_refused(models: dict[str, nn.Module]) -> None:
    text = cast(VisionLanguage, models["text_encoder"])

    with pytest.raises(DataError, match=r"caption: holds <\|image_pad\|>.*leave it out"):
        encode_texts(text, "edit_2509", ["a <|image_pad|> fox"], [()])


def test_captions_that_are_cut_are_said(qwen: QwenImage, caplog: pytest.LogCaptureFixture) -> None:
    codec = qwen.replace(task="text_to_image").codec()
    models = {"text_encoder": codec.load("text_encoder", device=CPU, dtype=torch.float32)}

    codec.encode(codec.spec.stages[1], models, [Sample(name="item 7", caption="a fox " * 300)])

    assert any(message.startswith("item 7: the caption has ") for message in caplog.messages)
    lengths = codec.caption_lengths(["a fox"])
    assert lengths is not None
    assert lengths.limit == 1024
    assert qwen.codec().caption_lengths(["a fox"]) is None


def test_identities_follow_files_and_task(qwen: QwenImage, tmp_path: Path) -> None:
    other = tiny_qwen_image(tmp_path, task="edit_2509", seed=1).codec()
    edit, plus = qwen.replace(task="edit").codec(), qwen.codec()
    drawn = qwen.replace(task="text_to_image").codec()

    assert len({codec.identity("text_encoder") for codec in (edit, plus, drawn, other)}) == 4
    assert edit.identity("vae") == plus.identity("vae") != other.identity("vae")
    assert edit.identity("tokenizer") == plus.identity("tokenizer")


def test_wrong_files_are_told_before_anything_is_encoded(qwen: QwenImage) -> None:
    dit, vae = qwen.weight("dit").resolve(), qwen.weight("vae").resolve()
    swapped = qwen.with_weights(vae=dit, text_encoder=vae).codec()

    with pytest.raises(WeightsError, match="is a transformer, not Qwen-Image's VAE"):
        swapped.identity("vae")
    with pytest.raises(WeightsError, match=r"not Qwen2\.5-VL"):
        swapped.identity("text_encoder")


def test_a_tokenizer_that_knows_no_pictures_is_refused(qwen: QwenImage, tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path / "words")

    with pytest.raises(WeightsError, match=r"has no token <\|image_pad\|>.*Qwen/Qwen-Image"):
        qwen.with_weights(tokenizer=tmp_path / "words").codec().load("text_encoder", device=CPU, dtype=torch.float32)


def test_both_layouts_say_the_same(codec: QwenImageCodec, models: dict[str, nn.Module], tmp_path: Path) -> None:
    folder = tiny_qwen_image(tmp_path, task="edit_2509", layout="diffusers").codec()
    theirs = {name: folder.load(name, device=CPU, dtype=torch.float32) for name in models}
    sample = Sample(name="a", caption="a fox", pixels=picture(32, 32), controls={"control": (picture(48, 32, 1),)})

    for stage in codec.spec.stages:
        (one,), (other,) = codec.encode(stage, models, [sample]), folder.encode(stage, theirs, [sample])
        assert one.tensors.keys() == other.tensors.keys()
        assert all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())
