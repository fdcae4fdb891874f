"""Run one stage of the training, or all of them in order."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from musubi.quickstart.build_base import group
from musubi.quickstart.build_base.classification import train_classifier
from musubi.quickstart.build_base.dit import train_dit
from musubi.quickstart.build_base.export import export
from musubi.quickstart.build_base.latents import encode_latents
from musubi.quickstart.build_base.options import Options
from musubi.quickstart.build_base.preview import preview
from musubi.quickstart.build_base.vae import train_decoder, train_vae

STAGES = {
    "vae": train_vae,
    "latents": encode_latents,
    "decoder": train_decoder,
    "dit": train_dit,
    "classifier": train_classifier,
    "preview": preview,
    "export": export,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run the stages it asks for."""
    parser = argparse.ArgumentParser(prog="python -m musubi.quickstart.build_base", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and, at the end, the base")
    parser.add_argument("--stage", choices=[*STAGES, "all"], default="all")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2, help="data-parallel processes of one thread each")
    parser.add_argument("--steps", type=int, help="steps of the stage, instead of its own number")
    parser.add_argument("--rate", type=float, help="learning rate of the stage, instead of its own")
    values = vars(parser.parse_args(arguments))
    stage = values.pop("stage")
    logging.basicConfig(level=logging.INFO, format=group.LOG_FORMAT)
    options = Options(**values)
    for name, work in STAGES.items():
        if stage in (name, "all"):
            group.launch(work, options)


if __name__ == "__main__":
    main()
