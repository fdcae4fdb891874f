"""A model divided over processes (FSDP2) as accelerate's launcher says, for training all of its weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, TypeVar, cast

import attrs
import torch
from accelerate.utils import FullyShardedDataParallelPlugin, parse_flag_from_env
from torch import Tensor, nn

from musubi.architecture import Architecture, Layout
from musubi.core.errors import ConfigError, Issue
from musubi.memory.policy import blocks_of
from musubi.training.processes import Processes
from musubi.training.trainer import Trainer

T = TypeVar("T")
_ELEMENTWISE = frozenset(("adamw", "lion"))
"""Optimisers whose update of a number looks at no other number, so that each process can do its part."""


@attrs.frozen(kw_only=True, eq=False)
class Sharding:
    """How a model is divided: what accelerate's configuration says of FSDP, and over which processes."""

    plugin: FullyShardedDataParallelPlugin
    processes: Processes

    @classmethod
    def of(cls, trainer: Trainer[Architecture], processes: Processes) -> Self | None:
        """Return what the launcher asks for; None without FSDP, or with one process, which has nothing to divide.

        Raises:
            ConfigError: The trainer cannot run on these processes, divided or not.
        """
        if processes.count == 1:
            return None
        if not parse_flag_from_env("ACCELERATE_USE_FSDP"):
            _refuse("several processes", _shared_issues(trainer))
            return None
        plugin = FullyShardedDataParallelPlugin()
        _refuse("FSDP", _divided_issues(trainer, plugin))
        return cls(plugin=plugin, processes=processes)

    def divide(self, model: nn.Module, layout: Layout) -> None:
        """Leave each process its part of every parameter; each block, and what lies around them, is gathered for use.

        Mixed precision is the trainer's, unless the configuration has a policy of its own. With offloading the parts
        stay in host memory.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        options: dict[str, Any] = {
            "mesh": init_device_mesh(self.processes.device.type, (self.processes.count,)),
            "mp_policy": self.plugin.mixed_precision_policy or MixedPrecisionPolicy(),
        }
        if self.plugin.cpu_offload:
            options["offload_policy"] = self.plugin.cpu_offload
        reshard = bool(self.plugin.reshard_after_forward)
        for block in blocks_of(model, layout):
            fully_shard(block, reshard_after_forward=reshard, **options)
        fully_shard(model, **options)

    def gathered(self, values: T) -> T:
        """Return nested values with whole tensors on the host in place of divided ones; empty ones where none leads."""
        if isinstance(values, Tensor):
            full = whole(values)
            kept = full.to("cpu", copy=True) if self.processes.leads else full.new_empty(0, device="cpu")
            return cast(T, kept)
        if isinstance(values, Mapping):
            return cast(T, {name: self.gathered(value) for name, value in values.items()})
        if isinstance(values, list | tuple):
            return cast(T, type(values)(self.gathered(value) for value in values))
        return values


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor whole, gathered from all processes if it is divided; then all of them call this at once."""
    full = getattr(tensor, "full_tensor", None)
    return tensor.detach() if full is None else cast(Tensor, full()).detach()


def divided(values: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return whole tensors divided as those of the same names are; every process has the whole ones."""
    return {name: _divided(value, like[name]) if name in like else value for name, value in values.items()}


def divided_moments(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return an optimiser's whole state with all that has a parameter's shape divided as that parameter is."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not any(hasattr(parameter, "full_tensor") for parameter in parameters):
        return dict(state)
    own = {
        index: {
            name: _divided(value, parameters[index])
            if isinstance(value, Tensor) and value.shape == parameters[index].shape
            else value
            for name, value in values.items()
        }
        for index, values in state["state"].items()
    }
    return {**state, "state": own}


def limit_gradients(parameters: Sequence[nn.Parameter], limit: float | None) -> float:
    """Scale gradients down to a common norm (None or 0: any) and return the norm that they had."""
    return float(whole(torch.nn.utils.clip_grad_norm_(parameters, limit or math.inf)))


def _divided(value: Tensor, like: Tensor) -> Tensor:
    if not hasattr(like, "full_tensor"):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor), "nothing else has full_tensor"
    given = value.to(like.device_mesh.device_type)
    return distribute_tensor(given, like.device_mesh, like.placements, src_data_rank=None).to(like.device)


def _refuse(title: str, issues: Iterable[Issue]) -> None:
    found = tuple(issues)
    if found:
        raise ConfigError(title, found)


def _shared_issues(trainer: Trainer[Architecture]) -> Iterable[Issue]:
    """Yield what cannot work where every process has the whole model."""
    if trainer.optimizer.fused_backward:
        message = "updates weights before the processes have averaged their gradients"
        yield Issue("optimizer.fused_backward", message, "leave it out, or run one process")


def _divided_issues(trainer: Trainer[Architecture], plugin: FullyShardedDataParallelPlugin) -> Iterable[Issue]:
    """Yield what cannot work with a divided model."""
    if plugin.fsdp_version != 2:
        hint = "accelerate launch --use_fsdp --fsdp_version 2, or `accelerate to-fsdp2` for a configuration file"
        yield Issue("fsdp_version", f"is {plugin.fsdp_version}, only 2 is supported", hint)
    if not trainer.network.trains_base:
        hint = "launch without FSDP: processes of a machine share the frozen model anyway; or train FullFineTune()"
        yield Issue("network", f"{trainer.network.title}: adapters are small, there is nothing to divide", hint)
    elif trainer.network.weights_dtype(torch.bfloat16) != torch.float32:
        hint = 'weights="float32": each process keeps only its share of them'
        yield Issue("network.weights", "stochastic rounding does not work on divided weights", hint)
    if trainer.optimizer.fused_backward:
        hint = "leave it out: gradients are divided, too"
        yield Issue("optimizer.fused_backward", "updates weights before the gradients are averaged", hint)
    if trainer.optimizer.kind not in _ELEMENTWISE:
        message = f"{trainer.optimizer.kind} needs whole tensors or is not known to work with divided ones"
        yield Issue("optimizer", message, "use AdamW or Lion: the state is divided like the weights")
    if trainer.samples:
        hint = "draw them with the files that the run saves"
        yield Issue("samples", "are dealt out to the processes, which must compute together", hint)
    if trainer.on_nonfinite == "roll_back":
        yield Issue("on_nonfinite", "is 'roll_back': no process has the whole state to go back to", "raise or skip")
