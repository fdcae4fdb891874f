"""The families whose transformers have golden cases of the reference, and how to write, load and call these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import attrs
import torch
from torch import Tensor, nn

from musubi import FluxKontext, FramePack, HunyuanVideo, QwenImage, Targets
from musubi.architecture import Architecture, Prepare, WeightHook
from musubi.architectures.flux_kontext.transformer import load_transformer as load_flux_kontext
from musubi.architectures.framepack.transformer import load_transformer as load_framepack
from musubi.architectures.hunyuan_video.transformer import load_transformer as load_hunyuan_video
from musubi.architectures.qwen_image.transformer import load_transformer as load_qwen_image
from musubi.weights.checkpoint import Checkpoint, open_checkpoint
from tests.architectures.flux_kontext import golden as flux_kontext
from tests.architectures.framepack import golden as framepack
from tests.architectures.hunyuan_video import golden as hunyuan_video
from tests.architectures.qwen_image import golden as qwen_image
from tests.architectures.recorded import as_recorded
from tests.parity.cases import golden, golden_stems, part

Tensors = dict[str, Tensor]


class Write(Protocol):
    """Writes a golden case's checkpoint, some of its tensors replaced."""

    def __call__(self, stem: str, folder: Path, *, prefix: str = "", changes: Tensors | None = None) -> Path: ...


class Load(Protocol):
    """Loads a transformer from an open checkpoint."""

    def __call__(
        self,
        checkpoint: Checkpoint,
        *,
        device: torch.device | str,
        dtype: torch.dtype,
        prepare: Prepare | None = None,
        on_weight: WeightHook | None = None,
    ) -> nn.Module: ...


@attrs.frozen(kw_only=True, eq=False)
class Family:
    """A family: its golden transformers, ``stem`` one of them, and what ``targets`` every kind of Linear in it."""

    spec: Architecture
    stem: str
    targets: Targets
    transformers: Callable[[], list[str]]
    load_transformer: Load
    write: Write
    predict: Callable[[nn.Module, Tensors], Tensor]

    def load(
        self, path: Path, *, prepare: Prepare | None = None, on_weight: WeightHook | None = None, exact: bool = True
    ) -> nn.Module:
        """Load a transformer on the CPU, in float32, unless not ``exact`` with the golden cases' frequencies."""
        with open_checkpoint(path) as checkpoint:
            model = self.load_transformer(
                checkpoint, device="cpu", dtype=torch.float32, prepare=prepare, on_weight=on_weight
            )
        return as_recorded(model) if exact else model

    def inputs(self, stem: str) -> Tensors:
        """Return the inputs of a golden transformer's first call."""
        tensors = golden(stem)[1]
        return framepack.calls(tensors)["vanilla"] if self.spec.kind == "framepack" else part(tensors, "in.")

    def checkpoint(self) -> Tensors:
        """Return the tensors of the transformer ``stem``, by original name."""
        return part(golden(self.stem)[1], "ckpt.")


FAMILIES: Mapping[str, Family] = {
    "hunyuan": Family(
        spec=HunyuanVideo.t2v(),
        stem="models_hunyuan",
        targets=Targets(
            preset="with_modulation", include=(r"final_layer\..*", r"txt_in\.individual_token_refiner\..*")
        ),
        transformers=hunyuan_video.stems,
        load_transformer=load_hunyuan_video,
        write=hunyuan_video.write,
        predict=hunyuan_video.predict,
    ),
    "framepack": Family(
        spec=FramePack.inverted(),
        stem="models_framepack",
        targets=Targets(
            preset="with_modulation", include=(r"norm_out\.linear", r"context_embedder\.token_refiner\..*")
        ),
        transformers=framepack.stems,
        load_transformer=load_framepack,
        write=framepack.write,
        predict=framepack.predict,
    ),
    "flux_kontext": Family(
        spec=FluxKontext.dev(),
        stem="models_flux_kontext",
        targets=Targets(preset="with_modulation", include=(r"final_layer\..*",)),
        transformers=lambda: golden_stems("models_flux_kontext"),
        load_transformer=load_flux_kontext,
        write=flux_kontext.write,
        predict=flux_kontext.predict,
    ),
    "qwen_edit": Family(
        spec=QwenImage.edit(),
        stem="models_qwen_edit",
        targets=Targets(),
        transformers=lambda: golden_stems("models_qwen_edit"),
        load_transformer=load_qwen_image,
        write=qwen_image.write,
        predict=qwen_image.predict,
    ),
}
"""By the name that the golden LoRAs bear: ``models_lora_<name>``."""
