from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from musubi import QwenImage
from musubi.architectures.qwen_image.tasks import Task
from musubi.batch import RAGGED, Batch
from musubi.core.errors import CacheError, WeightsError
from musubi.testing.qwen_image import tiny_qwen_image

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def plus(tmp_path_factory: pytest.TempPathFactory) -> QwenImage:
    return tiny_qwen_image(tmp_path_factory.mktemp("plus"), task="edit_2509")


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> QwenImage:
    return tiny_qwen_image(tmp_path_factory.mktemp("marked"), task="edit_2511")


def batch_of(lengths: tuple[int, ...], *controls: tuple[int, int]) -> Batch:
    draw = torch.Generator().manual_seed(0)
    texts = tuple(torch.randn(length, 64, generator=draw) for length in lengths)
    shown = {
        f"latents_control_{n}": torch.randn(len(lengths), 16, 1, *size, generator=draw)
        for n, size in enumerate(controls)
    }
    items = tuple(map(str, range(len(lengths))))
    return Batch(items=items, bucket="", stacked=shown, ragged={f"{RAGGED}vl_embed": texts})


def velocity(spec: QwenImage, batch: Batch, *, first: int = 0) -> Tensor:
    """Return the velocity of the items of a batch, which are the ``first`` and following of two."""
    denoiser = spec.denoiser()
    model = denoiser.load(spec.experts[0], device=CPU, dtype=torch.float32)
    x = torch.randn(2, 16, 1, 4, 6, generator=torch.Generator().manual_seed(9))
    own = slice(first, first + len(batch))
    with torch.no_grad():
        return denoiser.velocity(model, x[own], torch.tensor([0.3, 0.8])[own], denoiser.conditions(batch))


def test_editing_without_a_picture_names_what_is_missing(plus: QwenImage) -> None:
    with pytest.raises(CacheError, match="latents_control_0"):
        plus.denoiser().conditions(batch_of((3,)))


def test_what_draws_from_words_looks_at_no_picture(plus: QwenImage) -> None:
    drawn = plus.replace(task="text_to_image")

    assert drawn.denoiser().conditions(batch_of((3,), (4, 4))).controls == ()


def test_no_mask_is_made_where_all_texts_are_equally_long(plus: QwenImage) -> None:
    conditions = plus.denoiser().conditions

    assert conditions(batch_of((5, 5), (4, 4))).mask is None
    mask = conditions(batch_of((5, 2), (4, 4))).mask
    assert mask is not None
    assert mask.tolist() == [[True] * 5, [True] * 2 + [False] * 3]


def test_an_item_by_itself_or_beside_another_gives_the_same(plus: QwenImage) -> None:
    whole = batch_of((5, 2), (4, 4), (2, 6))
    second = attrs.evolve(
        whole,
        items=("1",),
        stacked={name: tensor[1:] for name, tensor in whole.stacked.items()},
        ragged={name: tensors[1:] for name, tensors in whole.ragged.items()},
    )

    assert (velocity(plus, whole)[1:] - velocity(plus, second, first=1)).abs().max() <= 2e-5


def test_musubi_tuner_s_single_picture_without_number_and_frame_is_the_same(plus: QwenImage) -> None:
    batch = batch_of((5,), (4, 4))
    flat = attrs.evolve(batch, stacked={"latents_control": batch["latents_control_0"][:, :, 0]})

    assert torch.equal(velocity(plus, flat), velocity(plus, batch))


def test_a_file_that_says_it_is_2511_is_refused_for_other_tasks(marked: QwenImage) -> None:
    tasks: tuple[Task, ...] = ("text_to_image", "edit", "edit_2509")
    for task in tasks:
        with pytest.raises(WeightsError, match=r"is Qwen-Image-Edit-2511, not .*edit_2511\(\)"):
            marked.replace(task=task).denoiser().empty(marked.experts[0])


def test_a_file_that_says_nothing_is_what_the_task_says(plus: QwenImage) -> None:
    batch = batch_of((5,), (4, 4))

    told = velocity(plus.replace(task="edit_2511"), batch)

    assert (told - velocity(plus, batch)).abs().max() > 1e-4


def test_the_model_of_layers_is_refused_by_name(plus: QwenImage, tmp_path: Path) -> None:
    content = load_file(plus.weight("dit").resolve())
    content["time_text_embed.addition_t_embedding.weight"] = torch.zeros(2, 64)
    save_file(content, tmp_path / "dit.safetensors", metadata={"qwen_image.axes_dims_rope": "[8, 12, 12]"})

    with pytest.raises(WeightsError, match="is Qwen-Image-Layered, not Qwen-Image-Edit-2509"):
        plus.with_weights(dit=tmp_path / "dit.safetensors").denoiser().empty(plus.experts[0])


@pytest.mark.parametrize(("task", "shown"), [("text_to_image", 0), ("edit", 1024**2 // 784), ("edit_2509", 188)])
def test_an_entry_tells_what_a_batch_of_the_published_model_holds(task: Task, shown: int, plus: QwenImage) -> None:
    spec = plus.replace(task=task)
    denoiser = spec.denoiser()

    shapes = denoiser.entry(denoiser.empty(spec.experts[0]), (16, 1, 128, 128))

    assert shapes["latents"] == (16, 1, 128, 128)
    assert shapes.get("latents_control_0") == ((16, 1, 128, 128) if shown else None)
    assert shapes["varlen_vl_embed"] == (1024 + shown, 64)
