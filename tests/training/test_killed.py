from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from musubi import Trainer
from musubi.testing.toy import Toy
from musubi.training import state
from musubi.training.state import RunState

_KILLED = """
import os, signal, sys
from pathlib import Path
from musubi import StepEnded, Trainer
from musubi.testing.toy import Toy

trainer = Trainer.load(Path(sys.argv[1]), plugins=[Toy])
for event in trainer.start():
    if isinstance(event, StepEnded) and event.step == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL) if hasattr(signal, "SIGKILL") else os._exit(9)
"""


def test_a_run_killed_between_two_saves_and_resumed_equals_an_undisturbed_one(
    trainer: Trainer[Toy], tmp_path: Path
) -> None:
    undisturbed = trainer.run(progress=False)
    victim = trainer.replace(output=tmp_path / "victim").with_checkpoints(state_every=3)
    settings = victim.save(tmp_path / "victim.toml")

    done = subprocess.run([sys.executable, "-c", _KILLED, str(settings), "5"], check=False, timeout=120)
    newest = state.latest(victim.output, victim.name)
    resumed = victim.run(resume="latest", progress=False)

    assert done.returncode != 0
    assert not (victim.output / "lora.safetensors.tmp").exists()
    assert newest is not None
    assert RunState.load(newest).step == 3
    assert resumed.losses == undisturbed.losses
    one, other = RunState.load(undisturbed.state), RunState.load(resumed.state)
    assert all(torch.equal(one.trained[n], other.trained[n]) for n in one.trained)
    assert one.taken == other.taken
    whole, continued = load_file(undisturbed.path), load_file(resumed.path)
    assert all(torch.equal(tensor, continued[name]) for name, tensor in whole.items())
