from __future__ import annotations

from pathlib import Path

from musubi.data.sources.companions import find_companions, unused_notes
from musubi.data.sources.matching import Matches, Named, match_controls, match_masks
from musubi.data.sources.tree import Tree

MEDIA, CONTROL = Path("media"), Path("control")


def _items(*names: str) -> list[Named]:
    return [named for name in names if (named := Named.file(MEDIA / name)) is not None]


def _tree(folders: dict[str, list[str]]) -> Tree:
    return Tree(root=CONTROL, folders={CONTROL / f: tuple(CONTROL / f / name for name in folders[f]) for f in folders})


def _matched(found: Matches) -> dict[str, list[str]]:
    return {
        item.relative_to(MEDIA).as_posix(): [path.relative_to(CONTROL).as_posix() for path in paths]
        for item, paths in found.files.items()
    }


def test_each_folder_is_matched_with_the_one_at_the_same_place() -> None:
    tree = _tree({".": ["x.png"], "a": ["x.png", "y.png"], "b": ["x.png"]})

    found = find_companions(_items("x.jpg", "a/x.jpg", "b/y.jpg"), MEDIA, tree, match_controls)

    assert _matched(found) == {"x.jpg": ["x.png"], "a/x.jpg": ["a/x.png"]}
    assert sorted(path.relative_to(CONTROL).as_posix() for path in found.unused) == ["a/y.png", "b/x.png"]


def test_a_subfolder_called_like_a_clip_is_a_folder_of_frames() -> None:
    tree = _tree({".": [], "dog": ["0.png", "1.png"], "fox": ["0.png"], "owl": ["notes.txt"]})

    found = find_companions(_items("dog.mp4", "fox.png", "owl.mp4"), MEDIA, tree, match_controls)

    assert _matched(found) == {"dog.mp4": ["dog"]}
    assert [path.as_posix() for path in found.unused] == ["control/fox/0.png"]


def test_a_subfolder_at_whose_place_media_lie_is_none() -> None:
    tree = _tree({".": [], "dog": ["x.png"]})

    found = find_companions(_items("dog.mp4", "dog/x.png"), MEDIA, tree, match_controls)

    assert _matched(found) == {"dog/x.png": ["dog/x.png"]}


def test_masks_of_clips_may_be_folders_of_frames() -> None:
    found = find_companions(_items("dog.mp4"), MEDIA, _tree({".": ["dog.png"], "dog": ["0.png"]}), match_masks)

    assert _matched(found) == {"dog.mp4": ["dog"]}


def test_a_note_names_a_file_that_belongs_to_nothing() -> None:
    (note,) = unused_notes([Path("control/x.png")], "rename it")

    assert str(note) == "control/x.png: belongs to no picture or clip (hint: rename it)"
