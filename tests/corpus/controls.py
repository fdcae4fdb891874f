"""Conditioning files: whose is which, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from musubi.data.dataset import Dataset
from musubi.data.sources.folder import Folder
from tests.corpus.case import NEIGHBOURS, Case, Kept, clip, dataset, nothing
from tests.corpus.paint import picture_bytes, plain_clip, quarters, write_bytes, write_picture

GOOD = tuple(attrs.evolve(kept, controls=(f"control/{kept.path}",)) for kept in NEIGHBOURS)
"""The neighbours, each with a control of its own name."""

_SIZE = (96, 64)
"""Another size and shape than that of the pictures."""


def controlled(root: Path, **options: Any) -> Dataset:
    """Return the folder with conditioning files in its subfolder; these are all wanted, or those that are there."""
    return dataset(Folder(root, control=root / "control")).replace(**options)


_required = partial(controlled, control="required")


def write_control(path: Path, content: bytes | None = None) -> None:
    """Write a conditioning file, without a caption; by default a good one."""
    if content is None:
        content = plain_clip() if path.suffix == ".mp4" else picture_bytes("png", quarters(_SIZE))
    write_bytes(path, content).with_suffix(".txt").unlink()


def write_neighbours_controls(root: Path) -> None:
    """Write a conditioning file for each of the neighbours."""
    for kept in NEIGHBOURS:
        write_control(root / "control" / kept.path)


def files(*items: str, controls: Sequence[str] = (), content: bytes | None = None) -> Callable[[Path], None]:
    """Return what writes items, and conditioning files beside those of the neighbours."""

    def write(root: Path) -> None:
        for name in items:
            write_bytes(root / name, plain_clip() if name.endswith(".mp4") else picture_bytes())
        write_neighbours_controls(root)
        for name in controls:
            write_control(root / "control" / name, content)

    return write


def controlled_item(path: str, *controls: str) -> Kept:
    facts: dict[str, Any] = {"controls": tuple(f"control/{name}" for name in controls)}
    return clip(path, **facts) if path.endswith(".mp4") else Kept(path, **facts)


def _case(
    name: str,
    pairs: Mapping[str, Sequence[str]],
    *,
    spare: Sequence[str] = (),
    read: Callable[[Path], Dataset] = controlled,
    reported: Mapping[str, str] | None = None,
    noted: Mapping[str, str] | None = None,
) -> Case:
    """Return the case of items with the controls they must get; ``spare`` ones belong to nobody."""
    reported = dict(reported or {})
    controls = [control for found in pairs.values() for control in found]
    kept = [controlled_item(path, *found) for path, found in pairs.items()]
    lost = [path for path in reported if "/" not in path]
    write = files(*pairs, *lost, controls=[*dict.fromkeys(controls), *spare])
    return Case(
        name=name,
        write=write,
        read=read,
        kept=kept,
        neighbours=GOOD,
        reported=reported,
        noted=noted or {},
    )


def _subfolders(root: Path) -> None:
    """Write pictures of one name in two folders, with controls in the same folders."""
    write_neighbours_controls(root)
    for name in ("a", "b"):
        write_picture(root / name / "odd.png", caption=name)
        write_control(root / "control" / name / "odd.png")


_ONE_STEM = {"odd.png": ["odd.png", "odd_0.png"], "odd.mp4": ["odd.mp4"]}

CASES = (
    _case("an item without a control is kept where none is required", {"odd.png": []}),
    _case(
        "an item without a control is named where one is required",
        {},
        reported={"odd.png": "control missing"},
        read=_required,
    ),
    _case("controls go by number, not by letter", {"odd.png": ["odd_1.png", "odd_2.png", "odd_10.png"]}),
    _case("the control of the very name comes first", {"odd.png": ["odd.png", "odd_0.png", "odd_1.png"]}),
    _case("a control may be in another format", {"odd.png": ["odd.webp"]}),
    _case("numbers of controls may have gaps and zeros in front", {"odd.png": ["odd_003.png", "odd_07.png"]}),
    _case(
        "a name that begins like another does not get its controls",
        {"img.png": ["img_0.png"], "img_1.png": ["img_1_0.png"], "img_10.png": ["img_10.png"], "img_2.png": []},
    ),
    _case(
        "an item called like another's numbered control keeps its own",
        {"img.png": ["img.png"], "img_1.png": ["img_1.png"]},
    ),
    _case(
        "names of digits do not get one another's controls", {"1.png": ["1.png"], "10.png": ["10.png"], "1_0.png": []}
    ),
    _case(
        "brackets and globs in names match themselves", {"a[1].png": ["a[1].png"], "a*.png": ["a*_0.png"], "a1.png": []}
    ),
    Case(
        name="pictures and clips of one stem have controls of their kind",
        write=files(*_ONE_STEM, controls=["odd.png", "odd_0.png", "odd.mp4"]),
        read=controlled,
        neighbours=GOOD,
        kept=[attrs.evolve(controlled_item(n, *c), captions=("this is odd.mp4",)) for n, c in _ONE_STEM.items()],
    ),
    _case(
        "a control of two items of one stem and kind is nobody's, and both are named",
        {},
        reported={"odd.png": "shares its stem", "odd.jpg": "shares its stem"},
        spare=["odd.png"],
    ),
    _case(
        "a control that is called nearly like an item is named, not taken",
        {"odd.png": ["odd.png"]},
        spare=["odd_left.png"],
        reported={"control/odd_left.png": "is not taken"},
    ),
    _case(
        "a control of nobody is noted",
        {"odd.png": []},
        spare=["nobody.png"],
        noted={"control/nobody.png": "belongs to"},
    ),
    _case(
        "a clip is no control of a picture",
        {"odd.png": []},
        spare=["odd.mp4"],
        noted={"control/odd.mp4": "belongs to no"},
    ),
    _case(
        "too many controls are left out from behind",
        {"odd.png": ["odd_0.png"]},
        spare=["odd_1.png", "odd_2.png"],
        read=partial(controlled, control_count=1),
    ),
    Case(
        name="too few controls are named",
        write=files("odd.png", controls=["odd_0.png", "odd_1.png"]),
        read=partial(controlled, control_count=2),
        neighbours=(),
        kept=[controlled_item("odd.png", "odd_0.png", "odd_1.png")],
        reported={"fine.png": "too few controls", "steady.mp4": "too few controls"},
    ),
    Case(
        name="controls in subfolders go with the media in the same subfolders",
        write=_subfolders,
        read=lambda root: dataset(Folder(root, control=root / "control", recursive=True)),
        neighbours=GOOD,
        kept=[Kept(f"{n}/odd.png", captions=(n,), controls=(f"control/{n}/odd.png",)) for n in "ab"],
    ),
    Case(
        name="a folder of controls that is missing is refused",
        write=nothing,
        read=controlled,
        refused="control",
    ),
)
"""Pairing, by one rule: a file belongs to the item with the longest name it can belong to, or is named."""
