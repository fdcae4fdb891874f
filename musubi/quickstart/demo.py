"""The quickstart: teach the embedded base model a creature it has never seen, and show what it learned."""

from __future__ import annotations

from pathlib import Path

import attrs

from musubi import AdamW, Cosine, Euler, LoRA, TrainResult, Uniform, WanCache, WanDataset, WanPipeline, WanTrainer
from musubi.quickstart.base_model import demo_model
from musubi.quickstart.dataset import write_dataset
from musubi.quickstart.score import Comparison, compare

STEPS, RATE, SEED = 900, 1e-3, 0


@attrs.frozen(kw_only=True)
class Demo:
    """What a quickstart made."""

    result: TrainResult
    comparison: Comparison


def run(out: Path, *, steps: int = STEPS, lr: float = RATE, seed: int = SEED) -> Demo:
    """Write the data, cache it, train a LoRA, sample before and after with the same prompts and seeds, and compare."""
    wan = demo_model()
    pictures = WanDataset.from_folder(write_dataset(out / "dataset"), resolution=64, frames=(1, 9)).with_batch_size(4)
    cache = WanCache(out / "cache", model=wan).build(pictures)
    trainer = (
        WanTrainer(model=wan, cache=cache, steps=steps, seed=seed, output=out)
        .with_network(LoRA(rank=16))
        .with_optimizer(AdamW(lr=lr))
        .with_schedule(Cosine(warmup=10))
        .with_timesteps(Uniform())  # the low noise levels, too: they hold the details
    )
    result = trainer.run()

    base = WanPipeline(model=wan).with_sampler(Euler(shift=3.0))
    learned = base.with_lora(result.lora)
    return Demo(result=result, comparison=compare(base, learned, seed=seed, folder=out / "samples"))
