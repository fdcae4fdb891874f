"""Base checkpoints with LoRAs in them, written without ever holding a whole model in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from musubi.architecture import Architecture
from musubi.core.errors import ConfigError, Issue, WeightsError, shown
from musubi.networks import fingerprint
from musubi.networks.file import LoRAFile
from musubi.networks.merge import Merge
from musubi.training.checkpoints import LinearWeights, as_path
from musubi.weights.checkpoint import Checkpoint, open_checkpoint
from musubi.weights.writing import Shape, streamed

_HASHES = ("modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash")


def merge_loras(
    model: Architecture,
    *,
    base: Path | str,
    loras: Sequence[LoRAFile | tuple[LoRAFile, float]],
    to: Path | str,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> Path:
    """Write a base checkpoint with LoRAs merged into its weights, and return the new file's path.

    Weights are read, changed in float32 and written one by one: the memory is a few times that of the largest one.
    Names, types and order are the base's, in one file; LoHa, LoKr and DoRA are merged, too.

    Args:
        model: The architecture of all.
        base: A file, a folder or an index, in the original or diffusers' layout.
        loras: What to merge, with weights where they are not 1.
        to: The new ``.safetensors`` file.
        dtype: Another type for all floating-point tensors.
        device: Where the sums are computed.

    Raises:
        ConfigError: There is nothing to merge, or the file cannot be written, or is the base itself.
        WeightsError: A file cannot be read, is quantised or of another model, or an adapter fits no weight.

    Example:
        >>> from musubi import LoRAFile, merge_loras
        >>> from musubi.testing.toy import Toy
        >>> style = LoRAFile.load("style.safetensors", Toy())  # doctest: +SKIP
        >>> merge_loras(Toy(), base="toy.safetensors", loras=[(style, 0.8)], to="new.safetensors")  # doctest: +SKIP
    """
    parts = tuple((lora, 1.0) if isinstance(lora, LoRAFile) else lora for lora in loras)
    source, target = as_path(base), as_path(to)
    _check(parts, source, target)
    hook = Merge(tuple((file if file.model == model else file.bind(model), weight) for file, weight in parts))
    with open_checkpoint(source) as checkpoint:
        weights = LinearWeights.of(checkpoint, model)
        adapted = [name for name in weights.pieces if any(file.get(name) is not None for file, _ in hook.parts)]
        _check_complete(hook, weights)
        metadata = _metadata(checkpoint, parts)
        with streamed(target, _shapes(checkpoint, dtype), metadata) as writer:
            for name, tensor in _tensors(weights, adapted, hook, torch.device(device)):
                writer.put(name, tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype))
    return target


def _tensors(
    weights: LinearWeights, adapted: Sequence[str], hook: Merge, device: torch.device
) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of the new file by the base's name."""
    changed = {source for name in adapted for source in weights.pieces[name].sources}
    for name in weights.checkpoint.names():
        if name not in changed:
            yield name, weights.checkpoint.read(name)
    for module in adapted:
        merged = hook(f"{module}.weight", weights.read(module).to(device))
        yield from weights.parts(module, merged).items()


def _shapes(checkpoint: Checkpoint, dtype: torch.dtype | None) -> dict[str, Shape]:
    kinds = {name: checkpoint.dtype(name) for name in checkpoint.names()}
    return {
        name: Shape(dtype if dtype is not None and kind.is_floating_point else kind, checkpoint.shape(name))
        for name, kind in kinds.items()
    }


def _metadata(checkpoint: Checkpoint, parts: Sequence[tuple[LoRAFile, float]]) -> Mapping[str, str]:
    own = {key: value for key, value in checkpoint.metadata.items() if key not in _HASHES}
    titles = [f"{file.metadata.get('modelspec.title', 'a LoRA')} x {weight:g}" for file, weight in parts]
    before = own.get("modelspec.title") or checkpoint.paths[0].stem
    return fingerprint.publishable({**own, "modelspec.merged_from": ", ".join([before, *titles])})


def _check(parts: Sequence[tuple[LoRAFile, float]], base: Path, to: Path) -> None:
    issues: list[Issue] = []
    if not parts:
        issues.append(Issue("loras", "is empty", "give at least one LoRAFile"))
    if base.exists() and to.exists() and base.samefile(to):
        issues.append(Issue("to", f"{shown(to)} is the base itself", "give another name"))
    if issues:
        raise ConfigError("merge", issues)


def _check_complete(hook: Merge, weights: LinearWeights) -> None:
    """Raise before anything is written if an adapter has no weight here."""
    idle = [name for file, _ in hook.parts for name in file.modules if name not in weights.pieces]
    if idle:
        hint = "is it a LoRA for another architecture or variant?"
        label = weights.checkpoint.label
        raise WeightsError("cannot merge", [Issue(name, f"is not in {label}", hint) for name in idle])
