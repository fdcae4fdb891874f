"""Models divided over two processes, launched with accelerate's FSDP settings, against the same runs on one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from musubi import EMA, AdamW, Cache, Cosine, FullFineTune, Trainer
from musubi.testing.toy import Toy
from musubi.training.sharding import divided, divided_moments, whole
from musubi.training.state import RunState

ROOT = Path(__file__).parents[2]
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
"""What ``accelerate launch --use_fsdp --fsdp_version 2`` tells the processes that it starts."""

SCRIPT = """
import json, sys
from pathlib import Path

import musubi.training.run as runs
from musubi import CancelToken, ConfigError, StepEnded, Trainer
from musubi.team import Team
from musubi.testing.toy import Toy

folder, what = Path(sys.argv[1]), sys.argv[2]
rank = Team().rank
token = CancelToken()
trainer = Trainer.from_toml((folder / "trainer.toml").read_text(encoding="utf-8"), plugins=[Toy])
told = {"losses": [], "norms": []}


class Measured(runs.Stepper):
    def advance(self):
        told["bytes"] = sum(
            getattr(p, "to_local", lambda p=p: p)().nbytes for p in self._setup.model.parameters()
        )
        state = getattr(self._setup.model.blocks[0], "_get_fsdp_state", None)
        groups = state()._fsdp_param_groups if state else []
        told["reshards"] = [group.post_forward_mesh_info is not None for group in groups]
        moments = [v for s in self._setup.optimizer.state.values() for v in s.values() if v.ndim]
        told["moments"] = sum(getattr(v, "to_local", lambda v=v: v)().nbytes for v in moments)
        return super().advance()


def listen(event):
    if isinstance(event, StepEnded):
        told["losses"].append(event.loss)
        told["norms"].append(event.grad_norm)
        if what == "cancel" and rank == 1 and event.step == 2:
            token.cancel()


runs.Stepper = Measured
try:
    result = trainer.run(on=[listen], cancel=token, progress=False, resume="auto" if what == "resume" else None)
    told |= {"reason": result.reason, "zero_effect": result.zero_effect}
except ConfigError as error:
    told["error"] = str(error)
(folder / f"{rank}.json").write_text(json.dumps(told), encoding="utf-8")
"""


def launch(
    folder: Path, trainer: Trainer[Toy], what: str = "run", *, processes: int = 2, environment: dict[str, str] = FSDP
) -> list[dict[str, Any]]:
    """Run a trainer on several processes and return what each of them tells."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trainer.toml").write_text(trainer.to_toml(), encoding="utf-8")
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    launched = subprocess.run(
        [sys.executable, *launcher, folder / "script.py", folder, what],
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert launched.returncode == 0, launched.stderr
    return [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(processes)]


def distance(one: Path, other: Path) -> float:
    """Return the largest difference of any number in two files of the same names."""
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@pytest.fixture(scope="module")
def full_trainer(cache: Cache[Toy]) -> Trainer[Toy]:
    """Return a trainer of all weights.

    Keys' biases have no gradient but rounding errors, which AdamW would blow up to whole steps: hence its ``eps``.
    """
    return Trainer(
        model=Toy(),
        cache=cache,
        steps=6,
        seed=3,
        network=FullFineTune(),
        optimizer=AdamW(lr=1e-2, eps=1e-3),
        schedule=Cosine(warmup=2),
        ema=EMA(),
        name="model",
        device="cpu",
    )


@pytest.fixture(scope="module")
def both(
    full_trainer: Trainer[Toy], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any], list[dict[str, Any]]]:
    """Return the folder of both runs, what one process told, and what two processes of half the accumulation told."""
    folder = tmp_path_factory.mktemp("both")
    one = full_trainer.replace(output=folder / "one", accumulate=2)
    (alone,) = launch(folder / "1", one, processes=1)
    together = launch(folder / "2", one.replace(output=folder / "two", accumulate=1))
    return folder, alone, together


Both = tuple[Path, dict[str, Any], list[dict[str, Any]]]


def test_a_divided_model_learns_what_a_whole_one_learns(both: Both) -> None:
    folder, alone, together = both

    assert distance(folder / "one" / "model.safetensors", folder / "two" / "model.safetensors") <= 1e-6
    for told in together:
        assert told["losses"] == pytest.approx(alone["losses"], rel=1e-6)
        assert told["norms"] == pytest.approx(alone["norms"], rel=1e-5)
        assert told["zero_effect"] is False


def test_each_process_keeps_half_of_the_weights_and_of_the_optimisers_state(both: Both) -> None:
    _, alone, together = both

    for told in together:
        assert told["bytes"] == pytest.approx(alone["bytes"] / 2, rel=0.05)
        assert told["moments"] == pytest.approx(alone["moments"] / 2, rel=0.05)


def test_the_state_of_a_divided_run_is_that_of_a_whole_one(both: Both) -> None:
    folder, _, _ = both
    one, two = (RunState.load(folder / name / "model-state") for name in ("one", "two"))

    for mine, other in ((one.trained, two.trained), (one.averages, two.averages)):
        assert mine.keys() == other.keys()
        assert all(torch.allclose(mine[name], other[name], rtol=0, atol=1e-6) for name in mine)
    first, second = one.optimizer["state"], two.optimizer["state"]
    assert first.keys() == second.keys()
    assert all(torch.allclose(first[i]["exp_avg"], second[i]["exp_avg"], rtol=0, atol=1e-6) for i in first)


def test_a_divided_run_that_was_stopped_goes_on_bit_for_bit(
    full_trainer: Trainer[Toy], both: Both, tmp_path: Path
) -> None:
    trainer = full_trainer.replace(output=tmp_path / "out")
    stopped = launch(tmp_path, trainer, "cancel")
    again = launch(tmp_path, trainer, "resume")

    assert {told["reason"] for told in stopped} == {"cancelled"}
    assert len(stopped[0]["losses"]) + len(again[0]["losses"]) == 6
    assert distance(tmp_path / "out" / "model.safetensors", both[0] / "two" / "model.safetensors") == 0


def test_one_process_goes_on_where_two_stopped(full_trainer: Trainer[Toy], both: Both, tmp_path: Path) -> None:
    trainer = full_trainer.replace(output=tmp_path / "out")
    launch(tmp_path, trainer, "cancel")

    trainer.replace(accumulate=2).run(resume="auto", progress=False)

    assert distance(tmp_path / "out" / "model.safetensors", both[0] / "one" / "model.safetensors") <= 1e-6


def test_the_launchers_settings_are_followed(full_trainer: Trainer[Toy], both: Both, tmp_path: Path) -> None:
    kept = {**FSDP, "FSDP_RESHARD_AFTER_FORWARD": "false"}

    told = launch(tmp_path, full_trainer.replace(output=tmp_path / "out", steps=1), environment=kept)

    assert [one["reshards"] for one in both[2]] == [[True], [True]]
    assert [one["reshards"] for one in told] == [[False], [False]]


def test_what_cannot_be_divided_is_refused_all_at_once(cache: Cache[Toy], tmp_path: Path) -> None:
    trainer = Trainer(model=Toy(), cache=cache, output=tmp_path / "out", device="cpu", on_nonfinite="roll_back")
    old = {**FSDP, "FSDP_VERSION": "1"}

    told = launch(tmp_path, trainer.with_samples("a picture"), environment=old)

    for part in ("fsdp_version: is 1", "network: lora of rank 16", "samples: are dealt out", "on_nonfinite"):
        assert part in told[0]["error"]
        assert part in told[1]["error"]


def test_fused_backward_is_refused_where_gradients_are_averaged(full_trainer: Trainer[Toy], tmp_path: Path) -> None:
    trainer = full_trainer.replace(output=tmp_path / "out").with_optimizer(AdamW(fused_backward=True))

    told = launch(tmp_path, trainer, environment={})

    assert "optimizer.fused_backward: updates weights before" in told[0]["error"]


def test_tensors_that_are_not_divided_stay_as_they_are() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter])
    values = {"a": torch.ones(2)}

    assert divided(values, {"a": parameter})["a"] is values["a"]
    assert divided_moments({"state": {0: values}}, optimizer) == {"state": {0: values}}
    assert torch.equal(whole(parameter), parameter)
