"""Print constraints that pin every core dependency to its lower bound in pyproject.toml.

    python .ci/oldest.py --newest torch > oldest.txt && pip install -c oldest.txt -e ".[dev]" && pytest -n 2

Passing with both these and constraints.txt is what makes the lower bounds honest.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
BOUND = re.compile(r"(?P<name>[\w.-]+)>=(?P<version>[\w.]+)")


def main() -> None:
    """Print one pin for each dependency."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--newest", nargs="*", default=[], metavar="NAME", help="dependencies to leave alone")
    left_alone = parser.parse_args().newest

    for requirement in tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]:
        bound = BOUND.fullmatch(requirement)
        if bound is None:
            parser.error(f"{requirement} has no lower bound")
        if bound["name"] not in left_alone:
            print(f"{bound['name']}=={bound['version']}")


if __name__ == "__main__":
    main()
