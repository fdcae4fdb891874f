"""One row of ``bench_device_memory``: a process of its own, so that its peaks are its own and it may run out of memory.

``python -m tests.bench.device_memory_row --row qwen/fp8 --json FILE [--device cpu --layers 2 --width 64 ...]``
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
import time
import traceback
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import attrs
import psutil
import torch
from torch import Tensor, nn

from musubi import AdamW, AdamW8bit, LoRA
from musubi.memory.plan import Cost, Plan, plan
from musubi.memory.policy import (
    FitContext,
    MemoryPolicy,
    Placement,
    arrange,
    loading_device,
    placed,
    preparation,
    weight_hook,
)
from musubi.networks.adapters import AdapterSet
from musubi.optim.optimizers import Optimizer
from musubi.parameters import ParameterGroup
from musubi.weights.checkpoint import Checkpoint
from musubi.weights.load import load_into
from tests.bench.device_memory_models import Job, Scale, job_of
from tests.bench.device_memory_rows import ROWS, Row

RANK = 16
OPTIMISERS: Mapping[str, Optimizer] = {"adamw8bit": AdamW8bit(lr=1e-5), "adamw": AdamW(lr=1e-5)}


@attrs.define(eq=False)
class Drawn:
    """Stand where a file stands: bfloat16 tensors drawn when they are read, so that none but the present one exists."""

    shapes: dict[str, tuple[int, ...]]
    device: torch.device
    path: Path = Path("random weights")
    metadata: dict[str, str] = attrs.field(factory=dict)

    @classmethod
    def of(cls, job: Job, device: torch.device) -> Drawn:
        """Return a checkpoint of a model in original names."""
        shapes: dict[str, tuple[int, ...]] = {}
        for name, parameter in job.model.named_parameters():
            original, _ = job.spec.keys.to_original(name)
            parts = job.spec.keys.to_library(original)
            rows = [job.model.get_parameter(part.name).shape[0] for part in parts]
            shapes[original] = (sum(rows), *parameter.shape[1:])
        return cls(shapes, device)

    def names(self) -> tuple[str, ...]:
        return tuple(self.shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def dtype(self, name: str) -> torch.dtype:
        return torch.bfloat16

    def copy(self, name: str, target: Tensor, *, start: int = 0) -> None:
        target.copy_(self._drawn(name)[start : start + len(target)])

    def _drawn(self, name: str) -> Tensor:
        shape = self.shapes[name]
        if len(shape) < 2:
            return torch.ones(shape, dtype=torch.bfloat16, device=self.device)
        return torch.empty(shape, dtype=torch.bfloat16, device=self.device).normal_(std=0.5 / shape[1] ** 0.5)

    def close(self) -> None:
        """Do nothing."""


def loaded(job: Job, ordered: tuple[MemoryPolicy, ...], device: torch.device) -> nn.Module:
    """Return the model, quantised on the device that computes wherever it is loaded to."""
    spec, place = job.spec, loading_device(ordered, device)
    checkpoint = Checkpoint([Drawn.of(job, device)])
    preparation(ordered, keys=spec.keys, layout=spec.layout)(job.model)
    hook = weight_hook(ordered, keys=spec.keys, layout=spec.layout)

    def there(name: str, tensor: Tensor) -> Any:
        assert hook is not None
        result = hook(name, tensor.to(device))
        return result.to(place) if isinstance(result, Tensor) else {k: v.to(place) for k, v in result.items()}

    load_into(
        job.model,
        checkpoint,
        keys=spec.keys,
        device=place,
        dtype=torch.bfloat16,
        on_weight=None if hook is None else there,
        keep_float32=job.keep_float32,
    )
    return job.model.requires_grad_(requires_grad=False).eval()


def measured(row: Row, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Return the prediction, and what loading, placing and training take."""
    scale = Scale(layers=options.layers, width=options.width, size=options.size, text=options.text)
    job = job_of(row.job, scale)
    optimiser = OPTIMISERS[options.optimizer]
    told = planned(job, row, device, optimiser)
    ordered = arrange(told.policies, FitContext(title=row.job, layout=job.spec.layout, blocks=job.blocks))
    began = time.perf_counter()
    with ExitStack() as stack:
        model = loaded(job, ordered, device)
        trained = stack.enter_context(adapted(job, model, device=device))
        placement = Placement(title=row.job, layout=job.spec.layout, device=device, dtype=torch.bfloat16, training=True)
        stack.enter_context(placed(model, ordered, placement))
        gc.collect()
        opened = {"opened_s": time.perf_counter() - began, "loading": peaks(device)}
        optimizer = optimiser.build((ParameterGroup(name="lora", parameters=tuple(trained)),))
        counts = row.counts(warm_up=options.warm_up, steps=options.steps)
        found = timed(lambda: one_step(job, model, optimizer, device), device, counts)
    return {**predicted(told), **opened, **found, "host": host(), "bandwidth": bandwidth(device)}


@contextmanager
def adapted(job: Job, model: nn.Module, *, device: torch.device | None = None) -> Generator[list[nn.Parameter]]:
    """Attach a LoRA to a model and give its parameters, on a device if that is not the CPU."""
    generator, spec = torch.Generator().manual_seed(0), job.spec
    trained = AdapterSet.create(LoRA(rank=RANK), model, keys=spec.keys, layout=spec.layout, generator=generator)
    if device is not None:
        trained.to(device)
    with trained.attached(model):
        yield list(trained.parameters())


def planned(job: Job, row: Row, device: torch.device, optimiser: Optimizer) -> Plan:
    """Return what a plan says before anything is loaded; it decides what the row leaves open."""
    kept = optimiser.state_bytes

    def predict(model: nn.Module) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return job.predict(model, job.inputs(torch.device("cpu"))).float()

    return plan(
        job.model,
        layout=job.spec.layout,
        keys=job.spec.keys,
        geometry=job.spec.geometry,
        buckets={row.job: job.latents},
        batch_size=1,
        trainable=LoRA(rank=RANK).trainable(job.model, keys=job.spec.keys, layout=job.spec.layout),
        policies=row.policies(job.blocks),
        training=True,
        dtype=torch.bfloat16,
        title=row.job,
        predict={row.job: predict},
        attach=lambda model: adapted(job, model),
        cost=Cost(device=4 + kept, gradient=4, file=4, state=4 + kept, what=type(optimiser).__name__),
        float32=job.keep_float32,
        accelerated=device.type != "cpu",
    )


def predicted(told: Plan) -> dict[str, Any]:
    """Return a plan's figures in bytes: what torch calls allocated, and what lies on the host."""
    (bucket,) = told.rows
    found = {"allocated": bucket.allocated, "total": bucket.total, "pinned": bucket.pinned, "host": told.running}
    return {"policies": told.line, "predicted": {**found, "parts": dict(bucket.parts)}}


def one_step(job: Job, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> tuple[float, float]:
    """Take a training step and return the seconds of its forward and of all that follows."""
    synchronise(device)
    began = time.perf_counter()
    inputs = job.inputs(device)
    with torch.autocast(device.type, torch.bfloat16):
        output = job.predict(model, inputs)
    loss = output.float().square().mean()
    synchronise(device)
    half = time.perf_counter()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    synchronise(device)
    return half - began, time.perf_counter() - half


def timed(step: Callable[[], tuple[float, float]], device: torch.device, counts: tuple[int, int]) -> dict[str, Any]:
    """Return medians over steps after a warm-up, and the peak of device memory over all of them."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    warm_up, steps = counts
    for _ in range(warm_up):
        step()
    times = [step() for _ in range(steps)]
    return {
        "step_s": median(forward + backward for forward, backward in times),
        "forward_s": median(forward for forward, _ in times),
        "backward_s": median(backward for _, backward in times),
        "steps_s": [forward + backward for forward, backward in times],
        "training": peaks(device),
    }


def peaks(device: torch.device) -> dict[str, int] | None:
    """Return the peaks of device memory, in bytes; None on a CPU."""
    if device.type != "cuda":
        return None
    return {
        "allocated": torch.cuda.max_memory_allocated(device),
        "reserved": torch.cuda.max_memory_reserved(device),
    }


def host() -> dict[str, int]:
    """Return resident host memory now and at its peak, in bytes; pinned memory is part of both."""
    info = psutil.Process().memory_info()
    peak = getattr(info, "peak_wset", 0)
    if not peak:
        import resource

        unit = 1 if platform.system() == "Darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"resident": info.rss, "peak": peak}


def bandwidth(device: torch.device) -> float | None:
    """Return bytes a second from pinned memory to the device, the best of several copies; None on a CPU."""
    if device.type != "cuda":
        return None
    source = torch.empty(512 << 20, dtype=torch.uint8, pin_memory=True)
    target = torch.empty(source.shape, dtype=torch.uint8, device=device)
    best = float("inf")
    for _ in range(6):
        synchronise(device)
        began = time.perf_counter()
        target.copy_(source, non_blocking=True)
        synchronise(device)
        best = min(best, time.perf_counter() - began)
    return source.nbytes / best


def synchronise(device: torch.device) -> None:
    """Wait for a device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Measure a row and write what came of it, an error included."""
    options = arguments()
    device = torch.device(options.device)
    torch.manual_seed(0)
    try:
        told = {"row": options.row, **measured(ROWS[options.row], options, device)}
    except Exception as error:  # noqa: BLE001  # a row that fails is a result, and others follow it
        kind = "out of memory" if isinstance(error, torch.OutOfMemoryError | MemoryError) else "failed"
        traceback.print_exc()
        told = {"row": options.row, "error": f"{kind}: {str(error).splitlines()[0] if str(error) else error!r}"}
    options.json.write_text(json.dumps(told, indent=2), encoding="utf-8")
    sys.stdout.flush()


def arguments() -> argparse.Namespace:
    """Return the options of a row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", choices=tuple(ROWS), required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--optimizer", choices=tuple(OPTIMISERS), default="adamw8bit")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--text", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    main()
