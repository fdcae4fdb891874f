# ruff: noqa: T201 - the design prints, and this is its code
"""The code that the design promises to users, word for word: it must type-check. Nothing here is run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from musubi import (
    BlockSwap,
    FP8Scaled,
    LoRA,
    QwenImage,
    QwenImageCache,
    QwenImageDataset,
    QwenImageTrainer,
    Sampled,
    StepEnded,
    TrackerCallback,
    Wan,
    WanCache,
    WanDataset,
    WanPipeline,
    WanTrainer,
    hub,
)


class Window(Protocol):
    """The tool that embeds a run."""

    closed: bool

    def progress(self, step: int, loss: float) -> None: ...

    def gallery(self, images: Sequence[object]) -> None: ...


def first() -> None:
    wan = Wan.t2v_14b()
    # or Wan.t2v_14b().with_weights(dit="wan2.1_t2v_14B_bf16.safetensors", vae=..., t5=...)
    clips = WanDataset.from_folder("clips", resolution=(832, 480), frames=(1, 25, 49)).repeat(4)
    cache = WanCache("cache/clips", model=wan).build(clips)
    trainer = (
        WanTrainer(model=wan, cache=cache, steps=1_600)
        .with_network(LoRA(rank=32, alpha=16))
        .with_memory(FP8Scaled(), BlockSwap(blocks=20))
    )
    print(trainer.plan())
    result = trainer.run()
    result.lora.save("clay_style.safetensors")


def second(window: Window, wan: Wan) -> None:
    edit = QwenImage.edit_2509()
    pairs = QwenImageDataset.from_jsonl("pairs.jsonl", resolution=1024).with_control(required=True)
    print(pairs.scan().report())
    trainer = QwenImageTrainer(model=edit, cache=QwenImageCache("cache/pairs", model=edit).build(pairs), steps=2_000)

    with trainer.start(on=[TrackerCallback("tensorboard")]) as run:
        for event in run:
            match event:
                case StepEnded(step=step, loss=loss):
                    window.progress(step, loss)
                case Sampled(images=images):
                    window.gallery(images)
                case _:
                    pass
            if window.closed:
                run.cancel()
    again = trainer.run(resume=run.state)

    video = (
        WanPipeline(model=wan)
        .with_lora("clay_style.safetensors", weight=0.8)
        .generate("a clay fox walks through snow", size=(832, 480), frames=81, steps=30, seed=7)
    )
    video.save("fox.mp4")
    hub.push(again, repo="me/clay-style", private=True)
