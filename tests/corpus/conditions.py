"""What is in conditioning files and masks, and in folders of frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from musubi.architecture import Size
from musubi.data.dataset import Dataset
from musubi.data.sources.folder import Folder
from tests.corpus.case import FRAMES, Case, Fault, Kept, clip, dataset
from tests.corpus.controls import GOOD, controlled, controlled_item, files, write_control
from tests.corpus.paint import (
    noise,
    numbered,
    picture_bytes,
    plain_clip,
    quarters,
    write_bytes,
    write_clip,
)
from tests.data.files import pixels

_ODD = "odd.png"


def _busy(size: Size = (192, 192)) -> bytes:
    """Return a picture with so much on it that its file cannot be cut without loss."""
    return picture_bytes("png", Image.fromarray(pixels(*size, seed=5)))


def _control(name: str, content: bytes, *, at_once: str = "", deeper: str = "", file: str = _ODD) -> Case:
    """Return the case of an item with an odd control; ``at_once`` or ``deeper`` tell what is wrong."""
    return Case(
        name=name,
        write=files(file, controls=[file], content=content),
        read=controlled,
        neighbours=GOOD,
        kept=[] if at_once else [controlled_item(file, file)],
        reported={file: at_once} if at_once else {},
        unmasked={file: Fault(f"control {deeper}")} if deeper else {},
    )


def _clip_control(name: str, frames: int, size: Size = (64, 64)) -> Case:
    """Return the case of a clip with a clip of so many frames as its control."""

    def write(root: Path) -> None:
        files("odd.mp4")(root)
        path = write_clip(root / "control" / "odd.mp4", frames=frames, size=size)
        path.with_suffix(".txt").unlink()

    return Case(name=name, write=write, read=controlled, neighbours=GOOD, kept=[controlled_item("odd.mp4", "odd.mp4")])


def _write_frames(folder: Path, sizes: Mapping[str, Size]) -> None:
    for name, size in sizes.items():
        write_control(
            folder / name,
            picture_bytes("png", Image.fromarray(numbered(int("".join(filter(str.isdigit, name))), size))),
        )


_SAME = {f"{number}.png": (64, 64) for number in range(FRAMES)}


def _frame_control(
    name: str, sizes: Mapping[str, Size], *, last: bytes | None = None, reported: str = "", deeper: str = ""
) -> Case:
    """Return the case of a clip with a folder of frames as its control; ``last`` is the content of one more frame."""

    def write(root: Path) -> None:
        files("odd.mp4")(root)
        _write_frames(root / "control" / "odd", sizes)
        if last is not None:
            write_control(root / "control" / "odd" / "4.png", last)

    return Case(
        name=name,
        write=write,
        read=controlled,
        neighbours=GOOD,
        kept=[] if reported else [controlled_item("odd.mp4", "odd")],
        reported={"odd.mp4": reported} if reported else {},
        broken={"odd.mp4": Fault(f"control {deeper}")} if deeper else {},
    )


def _masked(root: Path) -> Dataset:
    return dataset(Folder(root, masks=root / "masks"))


def _mask(
    name: str,
    content: bytes,
    *,
    file: str = _ODD,
    mask: str = _ODD,
    at_once: str = "",
    deeper: str = "",
) -> Case:
    """Return the case of an item with an odd mask; ``at_once`` or ``deeper`` tell what is wrong."""

    def write(root: Path) -> None:
        write_bytes(root / file, plain_clip() if file.endswith(".mp4") else picture_bytes())
        write_control(root / "masks" / mask, content)

    item = clip(file, mask=f"masks/{mask}") if file.endswith(".mp4") else Kept(file, mask=f"masks/{mask}")
    return Case(
        name=name,
        write=write,
        read=_masked,
        kept=[] if at_once else [item],
        reported={file: at_once} if at_once else {},
        unmasked={file: Fault(f"mask {deeper}")} if deeper else {},
    )


def _white(size: Size = (64, 64), value: int = 255) -> bytes:
    return picture_bytes("png", Image.new("L", size, value))


def _two_masks(root: Path) -> None:
    write_bytes(root / _ODD, picture_bytes())
    for name in ("odd.png", "odd.jpg"):
        write_control(root / "masks" / name, _white())


def _folders(root: Path) -> Dataset:
    """Return the folder, in which subfolders with pictures are clips."""
    return dataset(Folder(root, frame_folders=True))


_FRAMES = clip("odd", captions=("a walk",))


def _frame_folder(
    name: str,
    names: Mapping[str, Size],
    *kept: Kept,
    extra: Mapping[str, bytes] | None = None,
    reported: Mapping[str, str] | None = None,
    broken: Mapping[str, Fault] | None = None,
) -> Case:
    """Return the case of a folder of frames called like their numbers."""

    def write(root: Path) -> None:
        _write_frames(root / "odd", names)
        for file, content in (extra or {}).items():
            (root / "odd" / file).write_bytes(content)
        (root / "odd.txt").write_text("a walk", encoding="utf-8")

    return Case(name=name, write=write, read=_folders, kept=kept, reported=reported or {}, broken=broken or {})


CASES = (
    _control("a control of noise is named, and its item", noise(300), at_once="odd.png"),
    _control("an empty control is named", b"", at_once="is empty"),
    _control("a control of which the pixels are damaged is found by decoding", _busy()[:9000], deeper="is damaged"),
    _control("a control of one pixel is enlarged", picture_bytes("png", quarters((1, 1)))),
    _control("a control of 16 bits is read", picture_bytes("png", Image.fromarray(np.zeros((64, 64), np.uint16)))),
    _control("a clip's control of noise is named", noise(300), at_once="damaged", file="odd.mp4"),
    _clip_control("a control clip that ends early stays at its last frame", 2),
    _clip_control("a control clip that goes on is cut", 9),
    _clip_control("a control clip of another size is fitted", 5, (32, 96)),
    _frame_control("a folder of frames is a clip's control", _SAME),
    _frame_control("a folder of too few frames stays at its last one", {"0.png": (64, 64), "7.png": (64, 64)}),
    _frame_control("frames of other sizes in a control are named", _SAME | {"3.png": (32, 64)}, reported="3.png"),
    _frame_control("a frame of a control that is noise is named", _SAME, last=noise(99), reported="4.png"),
    _frame_control(
        "a frame of a control that is cut off is found by decoding",
        _SAME,
        last=_busy((64, 64))[:2000],
        deeper="is damaged",
    ),
    _mask("a mask of another size, but of one shape is stretched", _white((32, 32))),
    _mask("a mask of another shape is named", _white((64, 32)), at_once="another shape"),
    _mask("a mask of noise is named, and its item", noise(300), at_once="damaged"),
    _mask("a mask in another format than its picture is taken", picture_bytes("webp"), mask="odd.webp"),
    _mask("a mask of zeros and ones is named, for it looks black", _white(value=1), deeper="holds no value above 1"),
    _mask("a mask that is black all over is a mask", _white(value=0)),
    _mask("a mask in colours is taken by its brightness", picture_bytes()),
    _mask("a mask of 16 bits is read", picture_bytes("png", Image.fromarray(np.full((64, 64), 65535, np.uint16)))),
    _mask("a mask in the alpha of a picture is read", picture_bytes("png", Image.new("RGBA", (64, 64), (0, 0, 0, 99)))),
    _mask("a mask that is cut off is found by decoding", _busy()[:9000], deeper="is damaged"),
    _mask("a still mask of a clip is taken", _white(), file="odd.mp4"),
    _mask("a clip is a clip's mask", plain_clip(), file="odd.mp4", mask="odd.mp4"),
    Case(
        name="two masks of an item are named with it",
        write=_two_masks,
        read=_masked,
        reported={_ODD: "which of"},
    ),
    Case(
        name="a mask of nobody is noted",
        write=lambda root: write_control(root / "masks" / "nobody.png"),
        read=_masked,
        noted={"masks/nobody.png": "belongs to"},
    ),
    _frame_folder("a folder of frames is a clip", _SAME, _FRAMES),
    _frame_folder(
        "frames go by number, not by letter",
        {f"frame_{number}.png": (64, 64) for number in (10, 2, 1, 11, 9)},
        clip("odd", captions=("a walk",), numbers=(1, 2, 9, 10, 11)),
    ),
    _frame_folder(
        "a gap in the numbers of frames is no gap in the clip",
        {f"{number:03}.png": (64, 64) for number in (0, 1, 4, 5, 9)},
        clip("odd", captions=("a walk",), numbers=(0, 1, 4, 5, 9)),
    ),
    _frame_folder(
        "other files among frames do not matter",
        _SAME,
        _FRAMES,
        extra={"notes.md": b"x", ".5.png": b"", "a.json": b"{}"},
    ),
    _frame_folder("frames of other sizes are named", _SAME | {"3.png": (32, 64)}, reported={"odd/3.png": "32x64"}),
    _frame_folder("too few frames are too short", {"0.png": (64, 64)}, reported={"odd": "too short"}),
    _frame_folder(
        "a frame of noise is named", _SAME, extra={"4.png": noise(99)}, reported={"odd/4.png": "not a picture"}
    ),
    _frame_folder("an empty frame is named", _SAME, extra={"2.png": b""}, reported={"odd/2.png": "is empty"}),
    _frame_folder(
        "a first frame that is cut off is named",
        _SAME,
        extra={"0.png": _busy((64, 64))[:2000]},
        reported={"odd/0.png": "damaged"},
    ),
    _frame_folder(
        "a frame in the middle that is cut off is found by decoding",
        _SAME,
        clip("odd", captions=("a walk",), numbers=None),
        extra={"3.png": _busy((64, 64))[:2000]},
        broken={"odd": Fault("damaged", place="odd/3.png")},
    ),
)
"""Conditions, by one rule: what cannot be used is named, and so is the item that is lost with it."""
