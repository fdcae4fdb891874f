"""The promised code under both type checkers, as strict as they are."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = [HERE / "section_7.py", HERE / "revealed.py"]

pytestmark = pytest.mark.slow


def tool(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def test_mypy_accepts_the_promised_code(project_root: Path) -> None:
    settings = ["--config-file", str(HERE / "mypy.ini"), "--cache-dir", str(project_root / ".mypy_cache/typing")]

    command = [tool("mypy"), *settings, *map(str, FILES)]
    done = subprocess.run(command, cwd=project_root, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright_accepts_the_promised_code(project_root: Path) -> None:
    command = [tool("pyright"), "--outputjson", "--pythonpath", sys.executable, "-p", str(HERE)]

    done = subprocess.run(command, cwd=project_root, capture_output=True, text=True, check=False)
    if not done.stdout.lstrip().startswith("{"):
        pytest.skip(f"pyright cannot run here: {(done.stderr or done.stdout).strip()[-300:]}")

    report = json.loads(done.stdout)
    assert report["generalDiagnostics"] == []
    assert report["summary"]["filesAnalyzed"] == len(FILES)
