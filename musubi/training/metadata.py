"""What a LoRA file says about its making: musubi-tuner's ``ss_*`` and ``modelspec.*`` keys, and our configuration.

Only strings, never an absolute path. Source of the key set: training specification 3.6 (kohya's conventions). Unlike
there, ``ss_epoch`` counts from 1 in every file, and the resolution is the training data's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import attrs

import musubi
from musubi.architecture import Architecture, Expert
from musubi.core.errors import WeightsError
from musubi.data.sample import Item
from musubi.inference.decoding import DECODER
from musubi.inference.loras import EXPERT
from musubi.networks.adapters import AdapterSet
from musubi.networks.facts import resized
from musubi.networks.network import AdapterNetwork
from musubi.noise.timesteps import TimestepSampler
from musubi.training.about import About
from musubi.training.dataset_facts import commonest_size, dataset_facts
from musubi.training.experts import alone, trained_experts
from musubi.training.settings import settings
from musubi.training.setup import Setup
from musubi.training.stepper import Stepper
from musubi.training.trainer import Trainer
from musubi.weights.identity import identity

_LEVELS: Mapping[str, str] = MappingProxyType(
    {
        "ss_logit_mean": "mean",
        "ss_logit_std": "std",
        "ss_mode_scale": "scale",
        "ss_sigmoid_scale": "scale",
        "ss_discrete_flow_shift": "shift",
    }
)
"""Fields of distributions of noise levels, by key."""


@attrs.frozen(kw_only=True)
class Moment:
    """Where a run is when it saves.

    Args:
        step: Optimiser steps taken.
        total: Optimiser steps of the whole run.
        taken: Batches seen, those of all processes together.
        per_step: Batches that make a step.
        batches: Batches of an epoch.
        items: The items that are trained on and held out.
        data: What tells the data from other data.
        rate: The peak learning rate.
        precision: What the model computes in, e.g. ``bfloat16``.
        began: When this session started, if that is known.
    """

    step: int
    total: int
    taken: int
    per_step: int
    batches: int
    items: Sequence[Item]
    data: str
    rate: float
    precision: str
    began: datetime | None = None

    @classmethod
    def of(
        cls,
        trainer: Trainer[Architecture],
        setup: Setup,
        stepper: Stepper,
        *,
        expert: Expert | None = None,
        began: datetime | None,
    ) -> Moment:
        """Return where a run is now; the rate is that of an ``expert``, where each has its own, or the first one's."""
        rates = zip(setup.optimizer.param_groups, setup.base_rates, strict=True)
        own = [rate for group, rate in rates if expert and str(group.get("name", "")).startswith(f"{expert.name} ")]
        return cls(
            step=stepper.step,
            total=setup.material.total,
            taken=stepper.taken,
            per_step=trainer.accumulate * setup.processes.count,
            batches=len(setup.material.loader),
            items=tuple(cached.item for cached in trainer.cache.items()),
            data=setup.material.content,
            rate=own[0] if own else setup.base_rates[0],
            precision=str(setup.dtype).removeprefix("torch."),
            began=began,
        )

    @property
    def epoch(self) -> int:
        """The epoch, counted from 1, whose batch was seen last; 0 before the first."""
        return -(-self.taken // self.batches)

    @property
    def epochs(self) -> int:
        """The epochs that the whole run touches."""
        return -(-self.total * self.per_step // self.batches)


def metadata(
    trainer: Trainer[Architecture],
    setup: Setup,
    stepper: Stepper,
    *,
    expert: Expert | None = None,
    began: datetime | None = None,
) -> dict[str, str]:
    """Return the metadata of a file that a run saves now; ``began`` is when its session started.

    ``expert`` is whose file it is, where each has its own.
    """
    told = described(trainer, Moment.of(trainer, setup, stepper, expert=expert, began=began), expert)
    if trainer.initial is None or not isinstance(setup.trained, AdapterSet):
        return told
    return resized(told, setup.trained.to_file().modules)  # ranks and alphas are the file's that was started from


def described(run: Trainer[Architecture], moment: Moment, expert: Expert | None = None) -> dict[str, str]:
    """Return the metadata of a file that is saved at a moment of a run; ``expert`` None is the first that is trained.

    What it says is true of the run of this expert alone, but for the configuration, which is the whole run's.
    """
    now, expert = datetime.now(UTC), expert or trained_experts(run)[0]
    trainer = alone(run, expert)
    facts = {
        **_network(trainer),
        **_run(trainer, moment, now),
        **_noise_levels(trainer),
        **_files(trainer, expert),
        **_modelspec(trainer, moment, now),
        **_ours(trainer, moment, expert),
        "musubi.config": json.dumps(settings(run), ensure_ascii=False, sort_keys=True),
    }
    return {name: str(value) for name, value in facts.items()}


def _network(trainer: Trainer[Architecture]) -> dict[str, object]:
    """Return what the network is; nothing where the model itself is trained."""
    network = trainer.network
    if not isinstance(network, AdapterNetwork):
        return {}
    more = _chosen(network)
    return {
        "ss_network_module": f"musubi.{network.kind}",
        "ss_network_dim": network.rank,
        "ss_network_alpha": float(network.rank if network.alpha is None else network.alpha),
        "ss_network_dropout": getattr(network, "dropout", None) or None,
        **({"ss_network_args": _json(more)} if more else {}),
    }


def _chosen(network: AdapterNetwork) -> dict[str, Any]:
    """Return the network's values that have no key of their own and are not the usual ones."""
    values = network.to_dict()
    own = {"rank", "alpha", "dropout"}
    fields = [attribute for attribute in attrs.fields(type(network)) if attribute.name not in own]
    return {a.name: values[a.name] for a in fields if a.name in values and getattr(network, a.name) != _usual(a)}


def _usual(attribute: attrs.Attribute[Any]) -> object:
    """Return a field's default, made anew where it is made for every object."""
    default: Any = attribute.default
    factory: Any = getattr(default, "factory", None)
    return default if factory is None or default.takes_self else factory()


def _run(trainer: Trainer[Architecture], moment: Moment, now: datetime) -> dict[str, object]:
    kinds = {policy.kind for policy in trainer.memory}
    warmup = trainer.schedule.warmup
    kept = getattr(trainer.network, "weights", None) if trainer.network.trains_base else None
    return {
        "ss_base_model_version": trainer.model.name,
        "ss_session_id": _session(moment),
        "ss_training_started_at": moment.began.timestamp() if moment.began else None,
        "ss_training_finished_at": now.timestamp(),
        "ss_output_name": trainer.name,
        "ss_learning_rate": moment.rate,
        "ss_num_train_items": sum(item.split == "train" for item in moment.items),
        "ss_num_batches_per_epoch": moment.batches,
        "ss_num_epochs": moment.epochs,
        "ss_gradient_checkpointing": "gradient_checkpointing" in kinds,
        "ss_gradient_checkpointing_cpu_offload": "activation_offload" in kinds,
        "ss_gradient_accumulation_steps": trainer.accumulate,
        "ss_max_train_steps": moment.total,
        "ss_lr_warmup_steps": int(warmup * moment.total) if isinstance(warmup, float) else warmup,
        "ss_lr_scheduler": trainer.schedule.kind,
        "ss_mixed_precision": _short(moment.precision),
        "ss_seed": trainer.seed,
        "ss_training_comment": _about(trainer).comment,
        "ss_optimizer": repr(trainer.optimizer),
        "ss_max_grad_norm": trainer.max_grad_norm or 0.0,
        "ss_fp8_base": any(kind.startswith("fp8") for kind in kinds),
        "ss_full_fp16": False,
        "ss_full_bf16": kept == "bfloat16",
        "ss_guidance_scale": None,
        "ss_datasets": _json(dataset_facts(moment.items)),
        "ss_steps": moment.step,
        "ss_epoch": moment.epoch,
    }


def _noise_levels(trainer: Trainer[Architecture]) -> dict[str, object]:
    """Return how noise levels are drawn and weighted; what a distribution does not have is None."""
    levels = trainer.noise_levels
    told: dict[str, object] = {key: getattr(levels, name, None) for key, name in _LEVELS.items()}
    told["ss_sigmoid_scale" if levels.kind == "mode" else "ss_mode_scale"] = None
    return {"ss_timestep_sampling": levels.kind, "ss_weighting_scheme": trainer.weighting.kind, **told}


def _files(trainer: Trainer[Architecture], expert: Expert) -> dict[str, object]:
    model = trainer.model
    known = {**model.default_weights(), **model.weights}
    names: dict[str, object] = {"ss_sd_model_name": model.weight(expert.component).name}
    return {**names, "ss_vae_name": model.weight(DECODER).name} if DECODER in known else names


def _modelspec(trainer: Trainer[Architecture], moment: Moment, now: datetime) -> dict[str, object]:
    """Return the keys of https://github.com/Stability-AI/ModelSpec that are known."""
    about, levels, size = _about(trainer), trainer.noise_levels, commonest_size(moment.items)
    known = dict(trainer.model.metadata)
    if trainer.network.trains_base:
        known["modelspec.architecture"] = known.get("modelspec.architecture", trainer.model.name).removesuffix("/lora")
    said = {
        "description": about.description,
        "author": about.author,
        "license": about.license,
        "tags": ",".join(about.tags),
        "resolution": f"{size[0]}x{size[1]}" if size else None,
        "timestep_range": _thousandths(levels) if _limited(levels) else None,
    }
    return {
        **known,
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": about.title or trainer.name,
        "modelspec.date": now.isoformat(timespec="seconds"),
        **{f"modelspec.{name}": value for name, value in said.items() if value},
    }


def _ours(trainer: Trainer[Architecture], moment: Moment, expert: Expert) -> dict[str, object]:
    levels = trainer.noise_levels
    base = _base(trainer.model, expert)
    return {
        "musubi.version": musubi.__version__,
        "musubi.data": moment.data,
        "musubi.task": trainer.model.title,
        EXPERT: _whose(trainer),
        "musubi.timestep_range": f"{levels.low:g},{levels.high:g}",
        **({"musubi.base": base} if base else {}),
    }


def _whose(trainer: Trainer[Architecture]) -> str:
    """Return which experts a file is for: by name, or the component where a model has one for all noise levels."""
    experts = trainer.model.experts
    if len(experts) == 1:
        return experts[0].component
    return ", ".join(expert.name for expert in trained_experts(trainer))


def _base(model: Architecture, expert: Expert) -> str | None:
    """Return what tells an expert's base weights from others; None if they are not on this disk."""
    try:
        return identity(model.weight(expert.component).resolve(offline=True))
    except WeightsError:
        return None


def _about(trainer: Trainer[Architecture]) -> About:
    return trainer.about or About()


def _session(moment: Moment) -> int:
    """Return a number that all files of a session have in common, and no other session has."""
    session = f"{moment.began.timestamp() if moment.began else ''} {moment.data}"
    return int.from_bytes(hashlib.sha256(session.encode()).digest()[:4], "big")


def _limited(levels: TimestepSampler) -> bool:
    return levels.low > 0 or levels.high < 1


def _thousandths(levels: TimestepSampler) -> str:
    return f"{1000 * levels.low:g},{1000 * levels.high:g}"


def _short(precision: str) -> str:
    """Return what launchers call a type."""
    return {"bfloat16": "bf16", "float16": "fp16"}.get(precision, "no")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
