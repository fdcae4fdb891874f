"""Every task that makes or changes pictures, from pairs to pictures: a JSONL, a cache, a LoRA, a picture it changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow

from musubi import (
    AdamW,
    FluxKontextCache,
    FluxKontextDataset,
    FluxKontextPipeline,
    FluxKontextTrainer,
    LoRA,
    NearArea,
    QwenImageCache,
    QwenImageDataset,
    QwenImagePipeline,
    QwenImageTrainer,
    Request,
)
from musubi.testing.flux_kontext import tiny_flux_kontext
from musubi.testing.qwen_image import tiny_qwen_image

STEPS, SIDE = 20, 64
SHOWN = NearArea(SIDE)
"""At which size pictures to change are shown, in training and after it."""

Pixels = NDArray[np.uint8]


@attrs.frozen
class Family:
    """What a family calls its parts."""

    tiny: Callable[..., Any]
    dataset: Any
    cache: Any
    trainer: Any
    pipeline: Any


QWEN = Family(tiny_qwen_image, QwenImageDataset, QwenImageCache, QwenImageTrainer, QwenImagePipeline)
FLUX = Family(tiny_flux_kontext, FluxKontextDataset, FluxKontextCache, FluxKontextTrainer, FluxKontextPipeline)


@attrs.frozen
class Way:
    """A family, the options of its tiny files, and how many pictures each training pair and the request show."""

    family: Family
    options: Mapping[str, Any]
    trained: tuple[int, ...] = (1, 1, 1, 1)
    shown: int = 1


WAYS: Mapping[str, Way] = {
    "qwen text_to_image": Way(QWEN, {"task": "text_to_image"}, trained=(0, 0, 0, 0), shown=0),
    "qwen edit": Way(QWEN, {"task": "edit"}),
    "qwen edit_2509": Way(QWEN, {"task": "edit_2509"}),
    "qwen edit_2509 of several": Way(QWEN, {"task": "edit_2509"}, trained=(1, 2, 3, 2), shown=3),
    "qwen edit_2511 of several": Way(QWEN, {"task": "edit_2511"}, trained=(2, 1, 2, 1), shown=2),
    "kontext": Way(FLUX, {}),
    "kontext of none": Way(FLUX, {}, shown=0),
    "kontext of several": Way(FLUX, {}, trained=(1, 2, 1, 2), shown=2),
}
EDITS = [name for name, way in WAYS.items() if way.shown]


def pixels(seed: int, width: int = SIDE, height: int = SIDE) -> Pixels:
    """Return a smooth picture (H, W, 3) of a colour that wanders."""
    across, down = np.linspace(0, 1, width)[None, :, None], np.linspace(0, 1, height)[:, None, None] * (seed + 1)
    picture = np.sin(2 * np.pi * (across + down + np.arange(3) / 3 + seed / 7))
    return (127.5 + 127.5 * picture).round().astype(np.uint8)


def write_pairs(folder: Path, trained: tuple[int, ...]) -> Path:
    """Write pictures, those they were made from, each of another size, and a JSONL that pairs them."""
    rows = []
    for number, count in enumerate(trained):
        row = {"image_path": f"{number}.png", "caption": f"a wave, number {number}"}
        Pillow.fromarray(pixels(number)).save(folder / f"{number}.png")
        for place in range(count):
            row[f"control_path_{place}"] = f"{number}_{place}.png"
            size = (SIDE + 16 * place, SIDE + 32 * (number % 2))
            Pillow.fromarray(pixels(10 + number + place, *size)).save(folder / f"{number}_{place}.png")
        rows.append(json.dumps(row))
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


@attrs.frozen(eq=False)
class Walked:
    """What a way came to."""

    way: Way
    model: Any
    result: Any
    caches: Any

    @property
    def shown(self) -> list[Pixels]:
        """What the request shows: dark, so that its negative is another thing."""
        return [pixels(5 + place, SIDE, SIDE + 32 * place) // 3 for place in range(self.way.shown)]

    def request(self, **other: Any) -> Request:
        shown: dict[str, Any] = {"control": self.shown, "control_size": SHOWN} if self.shown else {}
        return Request("a wave", size=(SIDE, SIDE + 32), steps=4, seed=1, **shown).replace(**other)

    def pipeline(self, *, lora: bool = True) -> Any:
        pipeline = self.way.family.pipeline(model=self.model, device="cpu")
        return pipeline.with_lora(self.result.lora) if lora else pipeline

    def latents(self, **other: Any) -> torch.Tensor:
        tensor: torch.Tensor = self.pipeline().draw_latents(self.request(**other)).tensor
        return tensor


@pytest.fixture(scope="module")
def walked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Walked:
    """Walk the way of this name, once for all tests of it."""
    folder, way = tmp_path_factory.mktemp("way"), WAYS[request.param]
    model = way.family.tiny(folder / "files", **way.options)
    data = way.family.dataset.from_jsonl(write_pairs(folder, way.trained), resolution=SIDE, batch_size=2)
    if any(way.trained):
        data = data.with_control(size=SHOWN)
    caches = way.family.cache(folder / "cache", model=model).build(data, progress=False)
    trainer = way.family.trainer(
        model=model,
        cache=caches,
        steps=STEPS,
        output=folder / "out",
        name="wave",
        network=LoRA(rank=2, alpha=2),
        optimizer=AdamW(lr=3e-2),
    )
    return Walked(way, model, trainer.run(progress=False), caches)


def of(names: Iterable[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("walked", names, indirect=True)


@of(WAYS)
def test_a_task_goes_from_pairs_to_a_picture_that_its_lora_changed(walked: Walked, tmp_path: Path) -> None:
    made = walked.pipeline().draw(walked.request())
    path = made.save(tmp_path / "wave.png")

    assert walked.result.steps == STEPS
    with Pillow.open(path) as picture:
        assert picture.size == (SIDE, SIDE + 32)
    assert np.array_equal(walked.pipeline().draw(walked.request()).frame, made.frame)
    bare = walked.pipeline(lora=False).draw(walked.request()).frame
    assert np.abs(made.frame.astype(float) - bare).mean() > 0.5, "the LoRA changes nothing"


@of(EDITS)
def test_every_picture_that_is_shown_matters(walked: Walked) -> None:
    usual, shown = walked.latents(), walked.shown

    for place in range(len(shown)):
        other = [255 - picture if n == place else picture for n, picture in enumerate(shown)]
        change = (walked.latents(control=other) - usual).abs().mean() / usual.abs().mean()
        assert change > 1e-3, place


@of([name for name in EDITS if WAYS[name].shown > 1])
def test_the_order_of_pictures_matters(walked: Walked) -> None:
    swapped = walked.latents(control=[*reversed(walked.shown)])

    assert (swapped - walked.latents()).abs().mean() > 1e-4


@of(WAYS)
def test_words_matter(walked: Walked) -> None:
    assert not torch.equal(walked.latents(prompt="another thing"), walked.latents())


@of(WAYS)
def test_items_of_other_counts_and_sizes_of_pictures_never_share_a_batch(walked: Walked) -> None:
    loader, trained = walked.caches.loader(seed=0), walked.way.trained

    # An epoch's worth, and no more: batches never end.
    batches = [batch for _, batch in islice(loader.batches(), len(loader))]

    assert max(map(len, batches)) == 2
    assert sorted(pair_of(item) for batch in batches for item in batch.items) == [*range(len(trained))]
    for batch in batches:
        controls = [v for k, v in batch.stacked.items() if k.startswith("latents_control_")]
        assert {trained[pair_of(item)] for item in batch.items} == {len(controls)}
        assert all(len(latents) == len(batch) for latents in controls)


def pair_of(item: str) -> int:
    """Return the number that a pair's file has."""
    return int(item.rpartition("/")[2][0])
