"""What a real step takes on a CPU, by torch's own profiler: an independent measure of what a timeline predicts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from musubi import LoRA
from musubi.memory.excerpt import settle
from musubi.memory.policy import MemoryPolicy, Placement, placed, preparation
from tests.bench.plan_jobs import Job


def peak_of_a_step(job: Job, policies: Sequence[MemoryPolicy], *, dtype: torch.dtype) -> int:
    """Return the most bytes that a LoRA step has allocated at a time, weights and gradients of adapters left out."""
    model, spec = job.model, job.spec
    preparation(policies, keys=spec.keys, layout=spec.layout)(model)
    settle(model, keys=spec.keys, dtype=dtype, float32=job.float32)
    _fill(model)
    placement = Placement(title="", layout=spec.layout, device=torch.device("cpu"), dtype=dtype)
    with ExitStack() as stack:
        trained = list(stack.enter_context(job.attach(LoRA(rank=4))(model)))
        stack.enter_context(placed(model, policies, placement))
        for parameter in trained:
            parameter.register_post_accumulate_grad_hook(_forget)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
            job.predict(model, dtype=dtype).square().mean().backward()
    return _peak(found)


def _forget(parameter: torch.Tensor) -> None:
    parameter.grad = None


def _fill(model: nn.Module) -> None:
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.is_meta:
                made = torch.zeros(parameter.shape, dtype=parameter.dtype)
                setattr(module, name, nn.Parameter(made, requires_grad=False))


_SCRATCH = ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", "aten::empty")
"""Where a CPU's attention allocates room for one tile of scores: 1.5 MB for each thread, however many tokens."""


def _peak(found: Any) -> int:
    events: list[tuple[int, int, int, bool]] = []
    stack: list[tuple[Any, tuple[str, ...]]] = [
        (node, ()) for node in found.profiler.kineto_results.experimental_event_tree()
    ]
    while stack:
        node, above = stack.pop()
        if node.tag.name == "Allocation":
            fields = node.extra_fields
            events.append((node.start_time_ns, fields.alloc_size, fields.ptr, above[-2:] == _SCRATCH))
        stack += [(child, (*above, node.name)) for child in node.children]
    level = peak = 0
    scratch: set[int] = set()
    for _, size, place, inside in sorted(events, key=lambda event: event[0]):
        if size > 0 and inside:
            scratch.add(place)
        elif size < 0 and place in scratch:
            scratch.remove(place)
        else:
            level += size
            peak = max(peak, level)
    return peak
