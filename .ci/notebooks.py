"""Execute every notebook of `notebooks/`, each in an empty folder; with --save, keep the outputs in the files."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def main() -> None:
    """Run what the command line names, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path, help="files to execute; all of notebooks/ by default")
    parser.add_argument("--save", action="store_true", help="keep the outputs in the files")
    parser.add_argument("--timeout", type=int, default=900, metavar="SECONDS", help="for one cell")
    options = parser.parse_args()

    for path in options.notebooks or sorted(NOTEBOOKS.glob("*.ipynb")):
        began = time.monotonic()
        execute(path, save=options.save, timeout_s=options.timeout)
        print(f"{path.name}: {time.monotonic() - began:.0f} s")


def execute(path: Path, *, save: bool, timeout_s: int) -> None:
    """Execute one notebook in a temporary folder with the interpreter that runs this."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=timeout_s, kernel_name="python3", resources={"metadata": {"path": folder}}
        )
        client.execute()
    if save:
        _forget_times(notebook)
        nbformat.write(notebook, path)


def _forget_times(notebook: nbformat.NotebookNode) -> None:
    """Drop what changes with every execution or machine (times, progress bars, paths), so that a diff shows results."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata.get("language_info", {}).pop("version", None)


if __name__ == "__main__":
    main()
