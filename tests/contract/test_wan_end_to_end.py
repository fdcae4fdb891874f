"""Every task of Wan from files to files: a folder, a cache, a LoRA after twenty steps, a clip on disk, and changed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow

from musubi import AdamW, LoRA, OneFrame, Wan, WanCache, WanDataset, WanPipeline, WanTrainer
from musubi.architectures.wan.tasks import PUBLISHED, Task
from musubi.data.sources.folder import Folder
from musubi.inference.media import Image, Video
from musubi.inference.request import Request
from musubi.testing.checkpoints import tiny_wan
from musubi.training.result import TrainResult

FRAMES, STEPS = 5, 20
SEES: Mapping[str, tuple[str, ...]] = {
    "i2v_14b": ("image",),
    "flf2v_14b": ("image", "last"),
    "t2v_1_3b_control": ("control",),
    "t2v_14b_control": ("control",),
    "i2v_14b_control": ("image", "control"),
    "i2v_a14b": ("image",),
    "ti2v_5b": ("image",),
}
"""What generations of a task are shown; of the others nothing."""


@attrs.frozen
class Way:
    """A way from files to files: a task, and how its spec differs from the plain one."""

    task: Task
    options: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def places(self) -> OneFrame | None:
        return self.options.get("one_frame")

    @property
    def frames(self) -> int:
        return 1 if self.places is not None or self.task == "t2i_14b" else FRAMES


WAYS: Mapping[str, Way] = {
    **{str(task): Way(task) for task in PUBLISHED},
    "ti2v_5b from a picture": Way("ti2v_5b", {"from_picture": True}),
    "i2v_14b single frame": Way("i2v_14b", {"one_frame": OneFrame(target=1)}),
    "flf2v_14b single frame": Way("flf2v_14b", {"one_frame": OneFrame(target=1, controls=(2, 0))}),
    "i2v_a14b single frame": Way("i2v_a14b", {"one_frame": OneFrame(target=1)}),
}


def pixels(seed: int, frames: int, side: int) -> NDArray[np.uint8]:
    """Return a smooth clip (F, H, W, 3) of a colour that wanders."""
    ramp = np.linspace(0, 1, side)
    across, down = ramp[None, None, :, None], ramp[None, :, None, None] * (seed + 1)
    frame, colour = np.arange(frames)[:, None, None, None] / 7, np.arange(3)[None, None, None] / 3
    clip = np.sin(2 * np.pi * (across + down + frame + colour))
    return (127.5 + 127.5 * clip).round().astype(np.uint8)


def write_clip(path: Path, frames: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if len(frames) == 1:
        Pillow.fromarray(frames[0]).save(path.with_suffix(".png"))
    else:
        Video(frames, fps=16).save(path.with_suffix(".mp4"))


def write_dataset(folder: Path, way: Way, wan: Wan) -> WanDataset:
    """Write two items with captions, and what they follow, and return them as a dataset."""
    side = 2 * wan.geometry.multiple
    controls = 0 if not wan.roles.required else len(way.places.controls) if way.places else 1
    for number in range(2):
        name = f"item_{number}"
        write_clip(folder / "items" / name, pixels(number, way.frames, side))
        (folder / "items" / f"{name}.txt").write_text(f"a wave, number {number}", encoding="utf-8")
        for place in range(controls):
            suffix = f"_{place}" if controls > 1 else ""
            write_clip(folder / "controls" / f"{name}{suffix}", pixels(10 + number + place, way.frames, side))
    source = Folder(folder / "items", control=folder / "controls" if controls else None)
    return WanDataset(sources=(source,), resolution=side, frames=(way.frames,))


@attrs.frozen(eq=False)
class Walked:
    """What a way came to."""

    wan: Wan
    side: int
    result: TrainResult
    shown: Mapping[str, Any]
    caches: WanCache


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return what walks a way, once each."""

    @cache
    def walked(name: str) -> Walked:
        folder, way = tmp_path_factory.mktemp("way"), WAYS[name]
        wan = tiny_wan(folder / "files", task=way.task).replace(**way.options)
        data = write_dataset(folder, way, wan)
        caches = WanCache(folder / "cache", model=wan).build(data, progress=False)
        trainer = WanTrainer(
            model=wan,
            cache=caches,
            steps=STEPS,
            output=folder / "out",
            name="wave",
            network=LoRA(rank=2, alpha=2),
            optimizer=AdamW(lr=3e-2),
        )
        return Walked(wan, 2 * wan.geometry.multiple, trainer.run(progress=False), shown(way, wan), caches)

    return walked


def shown(way: Way, wan: Wan) -> dict[str, Any]:
    """Return what a generation is shown: dark, so that its negative is another thing."""
    side = 2 * wan.geometry.multiple
    clip = pixels(5, way.frames, side) // 4
    if way.places is not None:
        return {"control": [clip[0] + 20 * place for place in range(len(way.places.controls))]}
    given = {"image": clip[0], "last": clip[0] + 20, "control": clip}
    return {role: given[role] for role in SEES.get(way.task, ())}


def pipeline_of(walked: Walked, *, lora: bool = True) -> WanPipeline:
    pipeline = WanPipeline(model=walked.wan, device="cpu")
    for file in walked.result.loras if lora else ():
        pipeline = pipeline.with_lora(file)
    return pipeline


def request_of(walked: Walked, way: Way, **other: Any) -> Request:
    size = (walked.side, walked.side)
    return Request("a wave", size=size, frames=way.frames, steps=4, seed=1, **{**walked.shown, **other})


def drawn(walked: Walked, way: Way, *, lora: bool = True) -> Image | Video:
    return pipeline_of(walked, lora=lora).draw(request_of(walked, way))


def latents(walked: Walked, way: Way, **other: Any) -> torch.Tensor:
    return pipeline_of(walked).draw_latents(request_of(walked, way, **other)).tensor


def frames_of(made: Image | Video) -> NDArray[Any]:
    return made.frame[None] if isinstance(made, Image) else made.frames


@pytest.mark.parametrize("name", WAYS)
def test_a_task_goes_from_a_folder_to_a_clip_that_its_lora_changed(name: str, walk: Any, tmp_path: Path) -> None:
    way, walked = WAYS[name], walk(name)

    made = drawn(walked, way)
    path = made.save(tmp_path / ("wave.png" if way.frames == 1 else "wave.mp4"))

    assert walked.result.steps == STEPS
    assert opened(path) == (way.frames, walked.side, walked.side, walked.wan.geometry.fps if way.frames > 1 else None)
    assert np.array_equal(frames_of(drawn(walked, way)), frames_of(made))
    bare = frames_of(drawn(walked, way, lora=False))
    assert np.abs(frames_of(made).astype(float) - bare).mean() > 0.5, "the LoRA changes nothing"


@pytest.mark.parametrize("name", [name for name, way in WAYS.items() if way.task in SEES])
def test_what_a_task_is_shown_matters(name: str, walk: Any) -> None:
    way, walked = WAYS[name], walk(name)
    usual = latents(walked, way)

    for role, given in walked.shown.items():
        other = [255 - picture for picture in given] if isinstance(given, list) else 255 - given
        change = (latents(walked, way, **{role: other}) - usual).abs().mean() / usual.abs().mean()
        assert change > 2e-5, role  # the tiny VAE makes little of a picture; equal pictures give equal bits


def opened(path: Path) -> tuple[int, int, int, float | None]:
    """Return frames, width, height and, of a clip, frames a second as a reader finds them."""
    if path.suffix == ".png":
        with Pillow.open(path) as picture:
            return 1, picture.width, picture.height, None
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        count = sum(1 for _ in container.decode(video=0))
        return count, stream.width, stream.height, float(stream.average_rate or 0)


def test_both_experts_learn_into_files_of_their_own(walk: Any) -> None:
    for name in ("t2v_a14b", "i2v_a14b"):
        files = walk(name).result.experts

        assert sorted(files) == ["high", "low"]
        assert sorted(file.name for file in walk(name).result.path.parent.glob("*.safetensors")) == [
            "wave-high.safetensors",
            "wave-low.safetensors",
        ]


def test_single_frames_are_trained_at_their_places_in_time(walk: Any) -> None:
    walked = walk("i2v_14b single frame")
    denoiser = walked.wan.denoiser()
    model = denoiser.load(walked.wan.experts[0], device=torch.device("cpu"), dtype=torch.float32)
    _, batch = next(walked.caches.loader(seed=0).batches())
    x, sigma = torch.randn(denoiser.clean(batch).shape), torch.full((len(batch),), 0.7)
    cond = denoiser.conditions(batch)

    elsewhere = attrs.evolve(cond, places=cond.places + torch.tensor([0, 5]))

    assert cond.places.tolist() == [[0, 1]] * len(batch)
    near, far = (denoiser.velocity(model, x, sigma, one) for one in (cond, elsewhere))
    assert (near - far).abs().max() > 1e-3
