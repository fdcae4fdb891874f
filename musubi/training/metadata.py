"""What a LoRA file says about its making: the reference's ``ss_*`` and ``modelspec.*`` keys, and our configuration.

Only strings, never an absolute path. Source of the key set: training specification 3.6 (kohya's conventions).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import musubi
from musubi.architecture import Architecture
from musubi.memory.device import pick_device, pick_dtype
from musubi.training.setup import Setup
from musubi.training.stepper import Stepper
from musubi.training.trainer import Trainer

_MAY_CHANGE = frozenset(
    ("steps", "output", "name", "device", "memory", "samples", "sample_every", "save_every", "state_every", "cache")
)


def settings(trainer: Trainer[Architecture]) -> dict[str, Any]:
    """Return the trainer's values that decide the sequence of steps: what a resumed run must agree on."""
    values = trainer.to_dict()
    values["model"] = {**values["model"], "weights": weight_names(trainer.model)}
    values["precision"] = str(pick_dtype(trainer.precision, pick_device(trainer.device))).removeprefix("torch.")
    values["weights_changed_by"] = [policy.to_dict() for policy in trainer.memory if policy.changes_weights]
    return {name: value for name, value in values.items() if name not in _MAY_CHANGE}


def weight_names(model: Architecture) -> dict[str, str]:
    """Return the user's own weights by component, without directories."""
    return {component: ref.name for component, ref in model.weights.items()}


def metadata(trainer: Trainer[Architecture], setup: Setup, stepper: Stepper) -> dict[str, str]:
    """Return the metadata of a LoRA saved now."""
    loader, config = setup.loader, settings(trainer)
    now = datetime.now().astimezone()
    epochs = -(-trainer.steps * trainer.accumulate // max(1, len(loader)))
    facts: Mapping[str, object] = {
        "ss_base_model_version": trainer.model.name,
        "ss_network_module": f"musubi.{trainer.network.kind}",
        "ss_network_dim": trainer.network.rank,
        "ss_network_alpha": trainer.network.alpha if trainer.network.alpha is not None else trainer.network.rank,
        "ss_training_finished_at": now.timestamp(),
        "ss_output_name": trainer.name,
        "ss_learning_rate": setup.base_rates[0],
        "ss_num_train_items": loader.items,
        "ss_num_batches_per_epoch": len(loader),
        "ss_num_epochs": epochs,
        "ss_gradient_accumulation_steps": trainer.accumulate,
        "ss_max_train_steps": trainer.steps,
        "ss_lr_scheduler": trainer.schedule.kind,
        "ss_optimizer": repr(trainer.optimizer),
        "ss_max_grad_norm": trainer.max_grad_norm,
        "ss_mixed_precision": config["precision"],
        "ss_seed": trainer.seed,
        "ss_timestep_sampling": (trainer.timesteps or trainer.model.timesteps).kind,
        "ss_weighting_scheme": trainer.weighting.kind,
        "ss_sd_model_name": trainer.model.weight(trainer.model.experts[0].component).name,
        "ss_steps": stepper.step,
        "ss_epoch": stepper.position.epoch,
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.title": trainer.name,
        "modelspec.date": now.isoformat(timespec="seconds"),
        **trainer.model.metadata,
        "musubi.version": musubi.__version__,
        "musubi.config": json.dumps(config, ensure_ascii=False, sort_keys=True),
        "musubi.data": loader.content,
    }
    return {name: str(value) for name, value in facts.items() if value is not None}
