"""``python -m musubi.quickstart``: train a LoRA on the embedded demo model and show what it learned."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from musubi.core.errors import MusubiError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the quickstart and return the process's exit status."""
    options = _parser().parse_args(arguments)
    import torch

    from musubi.core.figures import new_figure
    from musubi.quickstart import demo
    from musubi.quickstart.report import write_report

    torch.set_num_threads(1)  # tensors this small lose more by waiting for a second thread than they win
    try:
        new_figure()  # what is missing is told before the training, not after it
        made = demo.run(options.out, steps=options.steps, lr=options.lr, seed=options.seed)
        files = write_report(made, options.out)
    except MusubiError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{made.comparison}\n" + "".join(f"  {file.as_posix()}\n" for file in files))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m musubi.quickstart", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("quickstart"), help="folder for all results (%(default)s)")
    parser.add_argument("--steps", type=_count, default=900, help="optimiser steps (%(default)s)")
    parser.add_argument(
        "--lr", type=_rate, default=1e-3, help="learning rate; 0 shows that nothing changes (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of data, training and samples (%(default)s)")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError("must be 0 or above")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
