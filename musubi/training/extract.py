"""A LoRA out of two checkpoints: what full training changed, as nearly as a rank allows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import attrs
import torch

from musubi.architecture import Architecture
from musubi.core.errors import Issue, WeightsError, shown
from musubi.networks.extract import Pair
from musubi.networks.file import LoRAFile
from musubi.networks.targets import Targets
from musubi.training.checkpoints import LinearWeights, as_path
from musubi.weights.checkpoint import open_checkpoint


def extract_lora(
    model: Architecture,
    *,
    base: Path | str,
    tuned: Path | str,
    rank: int = 16,
    keep: float | None = None,
    clamp: float | None = None,
    targets: Targets | None = None,
    device: torch.device | str = "cpu",
) -> LoRAFile:
    """Return the LoRA that turns ``base`` into ``tuned``, module by module the nearest one of its rank.

    Both files are read one weight at a time, so that the memory is that of one weight; most of the time goes into one
    singular value decomposition for each module, which a GPU does many times faster.

    Args:
        model: The architecture of both.
        base: The checkpoint before training: a file, a folder or an index, in the original or diffusers' layout.
        tuned: The checkpoint after it; the layouts need not be the same.
        rank: The most that a module gets.
        keep: The share of each difference's norm to keep, if less rank is enough for that.
        clamp: Cut the matrices to plus and minus this quantile of their values (the reference: 0.99).
        targets: Other modules than the architecture's default set.
        device: Where the decompositions are computed.

    Raises:
        ConfigError: A number makes no sense, or a pattern matches no module.
        WeightsError: A file cannot be read or is of another model, a weight has another shape, or nothing differs.

    Example:
        >>> from musubi import extract_lora
        >>> from musubi.testing.toy import Toy
        >>> lora = extract_lora(Toy(), base="toy.safetensors", tuned="mine.safetensors")  # doctest: +SKIP
    """
    with ExitStack() as files:
        before, after = (
            LinearWeights.of(files.enter_context(open_checkpoint(as_path(path))), model) for path in (base, tuned)
        )
        lacking = [name for name in before.pieces if name not in after.pieces]
        if lacking:
            issues = [Issue(f"{name}.weight", f"is missing in {shown(tuned)}") for name in lacking]
            raise WeightsError("the checkpoints are not of one model", issues)
        chosen = (targets or Targets()).choose(
            before.pieces, default=model.layout.adapters, presets=model.layout.presets
        )
        pairs = _pairs(before, after, chosen, torch.device(device))
        lora = LoRAFile.extract(pairs, rank=rank, keep=keep, clamp=clamp, model=model)
    return attrs.evolve(lora, metadata={**model.metadata, "ss_base_model_version": model.name, **lora.metadata})


def _pairs(
    before: LinearWeights, after: LinearWeights, modules: tuple[str, ...], device: torch.device
) -> Iterator[Pair]:
    for module in modules:
        yield module, before.read(module).to(device), after.read(module).to(device)
