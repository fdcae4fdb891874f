from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from musubi.data.dataset import Dataset
from tests.cache.counting import build, contents
from tests.data.files import picture

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys
from pathlib import Path

import attrs

from musubi.cache.cache import Cache
from musubi.team import Team
from musubi.core.control import CancelToken
from musubi.core.errors import CacheError, Issue
from musubi.core.events import Progress
from musubi.data.dataset import Dataset
from tests.cache.counting import CountingToy

root = Path(sys.argv[1])
dataset = Dataset.from_folder(root / "media", resolution=64, frames=(1, 5, 9))
rank = Team().rank
result = {}


def attempt(name, **options):
    model = CountingToy()
    try:
        Cache(root / name, model=model).build(dataset, progress=False, **options)
        result[name] = model.log
    except Exception as error:
        result[name] = f"{type(error).__name__}: {error}"


def fail_on_the_second(event):
    if rank == 1 and isinstance(event, Progress) and event.task == "text":
        raise CacheError("cannot write", [Issue("there", "no space left on device")])


class Odd(Exception):
    def __init__(self, a, b):
        super().__init__("odd")


def fail_oddly_on_the_first(event):
    if rank == 0 and isinstance(event, Progress) and event.task == "scan":
        raise Odd(1, 2)


token = CancelToken()
if rank == 1:
    token.cancel()
attempt("shared")
attempt("failed", on=[fail_on_the_second])
attempt("odd", on=[fail_oddly_on_the_first])
attempt("cancelled", cancel=token)
(root / "failed").rename(root / "again") if rank == 0 else None
Team().share(lambda: None)
attempt("again")
(root / f"{rank}.json").write_text(json.dumps(result))
"""


def test_two_processes_make_the_cache_of_one_and_an_error_of_either_ends_both(
    tmp_path: Path, media: Path, dataset: Dataset
) -> None:
    for number in range(20):
        picture(media / f"extra{number:02d}.png", size=(64, 64), seed=number + 10, caption=f"extra {number}")
    (media / "cow.txt").write_text("a BROKEN cow", encoding="utf-8")
    (media / "extra07.png").write_bytes((media / "extra07.png").read_bytes()[:300])
    script = tmp_path / "share.py"
    script.write_text(SCRIPT, encoding="utf-8")

    launched = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script, tmp_path],
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert launched.returncode == 0, launched.stderr

    first, second = (json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1))
    alone = build(tmp_path / "alone", dataset)
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")
    assert sorted(_encoded(first["shared"] + second["shared"])) == sorted(_encoded(alone))
    assert min(len(_encoded(log)) for log in (first["shared"], second["shared"])) > 10, "both do their share"
    assert first["failed"] == second["failed"] == "CacheError: cannot write: there: no space left on device"
    assert (first["odd"], second["odd"]) == ("Odd: odd", "MusubiError: Odd: odd")
    assert not (tmp_path / "cancelled" / "manifest.json").exists()
    assert contents(tmp_path / "again") == contents(tmp_path / "alone"), "after a failure and a cancelled build"


def _encoded(log: list[str]) -> list[str]:
    return [line for line in log if not line.startswith("load")]
