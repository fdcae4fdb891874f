"""Runs on two processes, started as ``accelerate launch`` starts them, against the same runs on one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from musubi import (
    EMA,
    AdamW,
    BlockSwap,
    Cache,
    Cosine,
    GradientCheckpointing,
    Int8Scaled,
    LoRA,
    LoRAFile,
    Trainer,
    Uniform,
)
from musubi.testing.toy import Toy

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys
from pathlib import Path

from musubi import CancelToken, StepEnded, Trainer
from musubi.team import Team
from musubi.testing.toy import Toy

folder, what = Path(sys.argv[1]), sys.argv[2]
rank = Team().rank
token = CancelToken()
trainer = Trainer.from_toml((folder / "trainer.toml").read_text(encoding="utf-8"), plugins=[Toy])
steps = []


def listen(event):
    if isinstance(event, StepEnded):
        steps.append({"loss": event.loss, "sigma": event.sigma, "items": event.items, "norm": event.grad_norm})
        if what == "cancel" and rank == 1 and event.step == 2:
            token.cancel()


resume = "auto" if what == "resume" else None
result = trainer.run(on=[listen], cancel=token, progress=False, resume=resume)
told = {"steps": steps, "reason": result.reason, "samples": [path.name for path in result.samples]}
(folder / f"{rank}.json").write_text(json.dumps(told), encoding="utf-8")
"""


def launch(folder: Path, trainer: Trainer[Any], what: str = "run", *, processes: int = 2) -> list[dict[str, Any]]:
    """Run a trainer on several processes and return what each of them tells."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trainer.toml").write_text(trainer.to_toml(), encoding="utf-8")
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    launched = subprocess.run(
        [sys.executable, *launcher, folder / "script.py", folder, what],
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert launched.returncode == 0, launched.stderr
    return [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(processes)]


def told_by(script: str, folder: Path, *, processes: int = 2) -> list[dict[str, Any]]:
    """Run a script on several processes and return what each of them writes into ``<rank>.json``."""
    (folder / "script.py").write_text(script, encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    launched = subprocess.run(
        [sys.executable, *launcher, folder / "script.py", folder],
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert launched.returncode == 0, launched.stderr
    return [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(processes)]


def distance(one: Path, other: Path) -> float:
    """Return the largest difference of any number in two LoRA files of the same names."""
    first, second = LoRAFile.load(one).tensors(), LoRAFile.load(other).tensors()
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@pytest.fixture(scope="module")
def many_trainer(cache: Cache[Toy]) -> Trainer[Toy]:
    """Return a trainer that uses everything random, for a number of batches that two do not divide in every epoch."""
    return Trainer(
        model=Toy(),
        cache=cache,
        steps=7,
        seed=3,
        network=LoRA(rank=4, alpha=2, dropout=0.2, rank_dropout=0.1, module_dropout=0.1),
        optimizer=AdamW(lr=1e-2),
        schedule=Cosine(warmup=2),
        timesteps=Uniform(strata=5),
        device="cpu",
    )


@pytest.fixture(scope="module")
def both(
    many_trainer: Trainer[Toy], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Trainer[Toy], list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the trainer of one process, what it told, and what two processes of half the accumulation told."""
    folder = tmp_path_factory.mktemp("both")
    one = many_trainer.replace(output=folder / "one", accumulate=2)
    alone = launch(folder / "1", one, processes=1)
    together = launch(folder / "2", one.replace(output=folder / "two", accumulate=1), processes=2)
    return one, alone, together


def test_two_processes_train_what_one_trains(
    both: tuple[Trainer[Toy], list[dict[str, Any]], list[dict[str, Any]]],
) -> None:
    trainer, _, _ = both
    two = trainer.output.parent / "two"

    assert distance(trainer.output / "lora.safetensors", two / "lora.safetensors") <= 1e-6


def test_the_ranks_draw_other_items_noise_and_levels_but_agree_on_loss_and_gradient(
    both: tuple[Trainer[Toy], list[dict[str, Any]], list[dict[str, Any]]],
) -> None:
    _, (alone,), (first, second) = both

    for whole, left, right in zip(alone["steps"], first["steps"], second["steps"], strict=True):
        assert whole["items"] == [*left["items"], *right["items"]]
        assert whole["sigma"] == [*left["sigma"], *right["sigma"]]
        assert set(left["sigma"]).isdisjoint(right["sigma"])
        assert left["loss"] == right["loss"] == pytest.approx(whole["loss"], rel=1e-6)
        assert left["norm"] == right["norm"] == pytest.approx(whole["norm"], rel=1e-5)


def test_a_stop_asked_of_one_process_stops_both_and_one_process_can_go_on(
    many_trainer: Trainer[Toy], both: tuple[Trainer[Toy], Any, Any], tmp_path: Path
) -> None:
    two = many_trainer.replace(output=tmp_path / "out")
    told = launch(tmp_path, two, "cancel")
    assert {(one["reason"], len(one["steps"])) for one in told} == {("cancelled", 3)}

    two.replace(accumulate=2).run(resume="auto", progress=False)

    assert distance(tmp_path / "out" / "lora.safetensors", both[0].output / "lora.safetensors") <= 1e-6


def test_samples_are_dealt_out_and_all_are_there(many_trainer: Trainer[Toy], tmp_path: Path) -> None:
    asked = many_trainer.replace(output=tmp_path / "out", steps=1, ema=EMA()).with_samples("one", "two", "three")

    told = launch(tmp_path, asked)

    names = sorted(path.name for path in (tmp_path / "out" / "samples").iterdir())
    assert len(names) == 6  # before the first step, and at the end
    assert told[0]["samples"] == told[1]["samples"] == names


def test_the_frozen_weights_are_in_memory_once(tmp_path: Path) -> None:
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("this system does not tell how much memory is shared")
    script = """
import json, sys
from contextlib import ExitStack
from pathlib import Path
import torch
from musubi.training.processes import Processes
from musubi.training.sharing import share_frozen

def proportional():
    line = next(l for l in Path("/proc/self/smaps_rollup").read_text().splitlines() if l.startswith("Pss:"))
    return int(line.split()[1]) * 1024

processes = Processes("cpu")
torch.manual_seed(0)
model = torch.nn.Sequential(*(torch.nn.Linear(1024, 1024) for _ in range(24))).requires_grad_(False)
before = [p.clone() for p in list(model.parameters())[:2]]
alone = proportional()
with ExitStack() as stack:
    share_frozen(model, processes, stack)
    processes.wait()
    sum(float(p.sum()) for p in model.parameters())
    processes.wait()
    told = {"saved": alone - proportional(), "equal": all(map(torch.equal, before, list(model.parameters())[:2]))}
    processes.wait()
Path(sys.argv[1], f"{processes.rank}.json").write_text(json.dumps(told))
"""
    told = told_by(script, tmp_path)

    size = 24 * 1025 * 1024 * 4
    assert all(one["equal"] for one in told)
    assert sum(one["saved"] for one in told) > 0.9 * size, "two copies became one"


FAILING = """
import json, os, sys
from pathlib import Path

from musubi import MusubiError, Trainer
from musubi.team import Team
from musubi.testing.toy import Toy

folder = Path(sys.argv[1])
rank = Team().rank
trainer = Trainer.from_toml((folder / "trainer.toml").read_text(encoding="utf-8"), plugins=[Toy])


def error_of(trainer, **how):
    try:
        trainer.run(progress=False, **how)
    except MusubiError as error:
        return f"{type(error).__name__}: {error}"


told = {"step": error_of(trainer)}
whole = trainer.replace(cache=trainer.cache.replace(path=folder / "whole"))
told["opening"] = error_of(whole.with_base_lora("nowhere.safetensors") if rank else whole)
told["resuming"] = error_of(whole.replace(output=folder / f"{rank}"), resume="auto")
(folder / "full").mkdir(exist_ok=True)
(folder / "full" / "lora.safetensors").mkdir(exist_ok=True)
told["saving"] = error_of(whole.replace(output=folder / "full", steps=1))
if rank == 0:
    told["left alone"] = error_of(whole.replace(output=folder / "alone"))
(folder / f"{rank}.json").write_text(json.dumps(told), encoding="utf-8")
os._exit(0)  # as if killed; gloo, too, may crash at the orderly end of a process whose peers are gone
"""


def test_what_fails_on_one_process_ends_all_and_each_says_why(many_trainer: Trainer[Toy], tmp_path: Path) -> None:
    shutil.copytree(many_trainer.cache.path, tmp_path / "whole")
    shutil.copytree(many_trainer.cache.path, tmp_path / "torn")
    torn = many_trainer.cache.replace(path=tmp_path / "torn")
    manifest, drawn = torn.manifest(), torn.loader(seed=many_trainer.seed).epoch(0)[1]
    cached = next(cached for cached in manifest.items if cached.item.name == drawn[0])
    file = torn.path / manifest.outputs[cached.outputs["latents"][0]].files[0].name
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    many_trainer.replace(output=tmp_path / "0", steps=2).run(progress=False)
    trainer = many_trainer.replace(cache=torn, output=tmp_path / "out")
    (tmp_path / "trainer.toml").write_text(trainer.to_toml(), encoding="utf-8")

    first, other = told_by(FAILING, tmp_path)

    assert first["step"] == "RunError: another process failed (step 1) (hint: its own error says why)"
    assert other["step"].startswith("CacheError")
    assert file.name in other["step"]
    assert first["opening"] == other["opening"]
    assert "nowhere.safetensors" in first["opening"]
    assert first["resuming"] == other["resuming"]
    assert "one at step 2, none" in first["resuming"]
    assert first["saving"] is not None
    assert first["saving"] == other["saving"]
    assert "another process has ended or cannot be reached" in first["left alone"]


@pytest.fixture(scope="module")
def swapping(many_trainer: Trainer[Toy]) -> Trainer[Toy]:
    """Return a trainer of a wider toy, most of whose quantised weights wait on the host."""
    memory = (Int8Scaled(), GradientCheckpointing(), BlockSwap(blocks=3))
    return many_trainer.replace(model=Toy(dim=64, depth=4), steps=4, memory=memory)


def test_two_processes_with_swapped_blocks_train_what_one_trains(swapping: Trainer[Toy], tmp_path: Path) -> None:
    resident = swapping.with_memory(*swapping.memory[:2])
    resident.replace(output=tmp_path / "one", accumulate=2).run(progress=False)

    told = launch(tmp_path / "swapped", swapping.replace(output=tmp_path / "two"))

    assert [step["norm"] for step in told[0]["steps"]] == [step["norm"] for step in told[1]["steps"]]
    assert distance(tmp_path / "two" / "lora.safetensors", tmp_path / "one" / "lora.safetensors") <= 1e-6
