"""The quickstart: teach the embedded base model a creature it has never seen, and show what it learned."""

from __future__ import annotations

from pathlib import Path

import attrs

from musubi import AdamW, Cosine, Euler, LoRA, TrainResult, WanCache, WanDataset, WanPipeline, WanTrainer
from musubi.quickstart.base_model import demo_model
from musubi.quickstart.dataset import write_dataset
from musubi.quickstart.score import Comparison, compare

PROMPTS = (
    "a big zuzu on a pink background",
    "a big zuzu on a green background",
    "a zuzu on a yellow background",
    "a zuzu on a gray background",
)
STEPS, RATE, SEED = 300, 1e-3, 0


@attrs.frozen(kw_only=True)
class Demo:
    """What a quickstart made."""

    result: TrainResult
    comparison: Comparison


def run(out: Path, *, steps: int = STEPS, lr: float = RATE, seed: int = SEED) -> Demo:
    """Write the data, cache it, train a LoRA, sample before and after with the same prompts and seeds, and compare."""
    wan = demo_model()
    creatures = WanDataset.from_folder(write_dataset(out / "dataset"), resolution=64, frames=(1, 9)).with_batch_size(4)
    cache = WanCache(out / "cache", model=wan).build(creatures)
    trainer = (
        WanTrainer(model=wan, cache=cache, steps=steps, seed=seed, output=out, name="lora")
        .with_network(LoRA(rank=16, alpha=16))
        .with_optimizer(AdamW(lr=lr))
        .with_schedule(Cosine(warmup=0.05))
    )
    result = trainer.run()

    base = WanPipeline(model=wan).with_sampler(Euler(shift=3.0))
    learned = base.with_lora(result.lora)
    return Demo(result=result, comparison=compare(base, learned, prompts=PROMPTS, seed=seed, folder=out / "samples"))
