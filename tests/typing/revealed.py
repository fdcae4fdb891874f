"""What type checkers infer for the fluent API; `assert_type` fails the check if it is anything else. Nothing is run."""

from __future__ import annotations

from typing import assert_type

from musubi import (
    Cache,
    Dataset,
    Event,
    Image,
    LoRA,
    LoRAFile,
    Pipeline,
    QwenImage,
    Trainer,
    TrainResult,
    Video,
    Wan,
    WanCache,
    WanDataset,
    WanPipeline,
    WanTrainer,
)
from musubi.architecture import Architecture


def fluent_calls_keep_the_type(trainer: WanTrainer, clips: WanDataset, cache: WanCache, pipeline: WanPipeline) -> None:
    assert_type(trainer.with_network(LoRA(rank=4)), WanTrainer)
    assert_type(trainer.with_memory(), WanTrainer)
    assert_type(trainer.replace(steps=2), WanTrainer)
    assert_type(clips.repeat(2).with_control(required=True).with_batch_size(2), WanDataset)
    assert_type(WanDataset.from_folder("x", resolution=512), WanDataset)
    assert_type(cache.build(clips), WanCache)
    assert_type(pipeline.with_lora("x.safetensors"), WanPipeline)
    assert_type(WanTrainer.from_toml(""), WanTrainer)
    assert_type(Wan.t2v_14b().with_weights(dit="x.safetensors"), Wan)


def verbs_give_what_they_say(trainer: WanTrainer, pipeline: WanPipeline) -> None:
    assert_type(trainer.run(), TrainResult)
    assert_type(trainer.run().lora, LoRAFile)
    assert_type(trainer.model, Wan)
    assert_type(trainer.cache, WanCache)
    assert_type(pipeline.generate("x"), Image | Video)
    with trainer.start() as run:
        for event in run:
            assert_type(event, Event)


def a_pinned_noun_passes_for_the_generic_one(
    trainer: WanTrainer, cache: WanCache, clips: WanDataset, pipeline: WanPipeline
) -> None:
    exact: Trainer[Wan] = trainer
    wide: Trainer[Architecture] = trainer
    caches: Cache = cache
    data: Dataset = clips
    pipelines: Pipeline = pipeline
    _ = (exact, wide, caches, data, pipelines)


def a_bare_generic_means_any_architecture(trainer: Trainer, cache: Cache, pipeline: Pipeline) -> None:
    assert_type(trainer.model, Architecture)
    assert_type(cache.model, Architecture)
    assert_type(pipeline.model, Architecture)


def another_model_is_refused(trainer: WanTrainer, edit: QwenImage) -> None:
    WanTrainer(model=edit, cache=trainer.cache)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
