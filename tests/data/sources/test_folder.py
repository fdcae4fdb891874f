from __future__ import annotations

import os
from pathlib import Path

import pytest

from musubi.core.errors import ConfigError, DataError
from musubi.data.sources.folder import Folder
from musubi.data.sources.source import Listing
from tests.data.files import clip, picture


def _made(root: Path, *names: str, caption: str | None = "a picture") -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(root / name, size=(16, 16), caption=caption)
    return root


def _paths(root: Path, listing: Listing) -> list[str]:
    return [record.path.relative_to(root).as_posix() for record in listing.records]


def _controls(listing: Listing) -> dict[str, list[str]]:
    return {r.path.name: [path.name for path in r.controls.get("control", ())] for r in listing.records}


def test_a_folder_lists_media_by_path_with_their_captions(tmp_path: Path) -> None:
    for name in ("b.png", "clip_2.png", "clip_10.png", "A.PNG"):
        picture(tmp_path / name, caption=f"  this is {name}\n")

    listing = Folder(tmp_path).read()

    assert _paths(tmp_path, listing) == ["A.PNG", "b.png", "clip_10.png", "clip_2.png"]
    assert [record.captions for record in listing.records][:2] == [("this is A.PNG",), ("this is b.png",)]
    assert (listing.issues, listing.notes) == ((), ())


def test_pictures_and_clips_may_lie_together(tmp_path: Path) -> None:
    _made(tmp_path, "b.png")
    clip(tmp_path / "a.mp4")

    assert _paths(tmp_path, Folder(tmp_path).read()) == ["a.mp4", "b.png"]


def test_subfolders_count_only_when_asked_for(tmp_path: Path) -> None:
    _made(tmp_path, "a.png", "sub/b.png", "sub/._c.png", "sub/.hidden/d.png")

    assert _paths(tmp_path, Folder(tmp_path).read()) == ["a.png"]
    assert _paths(tmp_path, Folder(tmp_path, recursive=True).read()) == ["a.png", "sub/b.png"]


def test_the_order_is_that_of_the_paths_as_text(tmp_path: Path) -> None:
    _made(tmp_path, "b.png", "a/z.png", "a-b/c.png", "a.png")

    assert _paths(tmp_path, Folder(tmp_path, recursive=True).read()) == ["a-b/c.png", "a.png", "a/z.png", "b.png"]


def test_captions_may_have_another_extension_and_a_byte_order_mark(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", caption=None)
    (tmp_path / "a.caption.txt").write_text("größer 画像", encoding="utf-8-sig")

    (record,) = Folder(tmp_path, caption_extension=".caption.txt").read().records

    assert record.captions == ("größer 画像",)


def test_every_line_may_be_a_caption_of_its_own(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", caption="one\n\n two\n")

    assert Folder(tmp_path).read().records[0].captions == ("one\n\n two",)
    assert Folder(tmp_path, caption_lines=True).read().records[0].captions == ("one", "two")


def test_a_picture_without_a_caption_is_listed_with_the_way_out(tmp_path: Path) -> None:
    picture(tmp_path / "cat.png", caption=None)

    (record,) = Folder(tmp_path).read().records

    assert (record.captions, record.remedy) == ((), "write cat.txt beside it")


def test_a_caption_that_cannot_be_read_is_an_issue_and_costs_no_other_picture(tmp_path: Path) -> None:
    _made(tmp_path, "a.png", "b.png")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00caf\xe9")

    listing = Folder(tmp_path).read()

    assert _paths(tmp_path, listing) == ["a.png"]
    assert [str(issue).rpartition("/")[2] for issue in listing.issues] == [
        "b.txt: caption is not UTF-8 (hint: save the file as UTF-8 text)"
    ]


def test_media_of_a_format_that_is_not_read_are_reported(tmp_path: Path) -> None:
    _made(tmp_path, "a.png", "sub/b.png")
    for name in ("a.gif", "c.TIFF", "sub/d.heic", "notes.json"):
        (tmp_path / name).touch()

    listing = Folder(tmp_path, recursive=True).read()

    assert [Path(issue.path).name for issue in listing.issues] == ["a.gif", "c.TIFF", "d.heic"]


def test_a_file_of_any_format_that_has_a_caption_is_reported(tmp_path: Path) -> None:
    _made(tmp_path, "cat.png")
    for name in ("cat.json", "photo.jfif", "photo.txt", "noext", "noext.txt", "alone.txt"):
        (tmp_path / name).touch()

    listing = Folder(tmp_path).read()

    assert [(Path(issue.path).name, issue.message) for issue in listing.issues] == [
        ("noext", "a file without extension is not read"),
        ("photo.jfif", ".jfif is not read"),
    ]


@pytest.mark.parametrize("name", ["nowhere", "empty", "file.txt"])
def test_a_folder_without_media_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("", encoding="utf-8")

    with pytest.raises(DataError, match=name):
        Folder(tmp_path / name).read()


@pytest.mark.skipif(os.name == "nt", reason="Windows allows neither such names nor links")
def test_strange_names_lose_no_item_and_loops_end(tmp_path: Path) -> None:
    strange = ["a b.png", "p[1].png", "*.png", "new\nline.png", "画像.png", "caf\udce9.png", "e\u0301.png", "-x.png"]
    for name in strange:
        picture(tmp_path / name, size=(16, 16), caption=f"it is {name[:1]}")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")

    listing = Folder(tmp_path, recursive=True).read()

    assert {record.path.name: record.captions for record in listing.records} == {
        n: (f"it is {n[:1]}",) for n in strange
    }
    assert [Path(issue.path).name for issue in listing.issues] == ["gone.png"]


def test_a_subfolder_of_pictures_may_be_a_clip_with_its_caption_beside_it(tmp_path: Path) -> None:
    _made(tmp_path, "still.png")
    _made(tmp_path, "walk v1.5/0.png", "walk v1.5/1.png", "empty/x.png", caption=None)
    (tmp_path / "empty" / "x.png").unlink()
    (tmp_path / "walk v1.5.txt").write_text("a walk", encoding="utf-8")

    listing = Folder(tmp_path, frame_folders=True).read()

    assert [(r.path.name, r.captions) for r in listing.records] == [
        ("still.png", ("a picture",)),
        ("walk v1.5", ("a walk",)),
    ]


def test_folders_of_frames_may_lie_deeper_and_beside_clips(tmp_path: Path) -> None:
    _made(tmp_path, "a/walk/0.png", caption=None)
    _made(tmp_path, "a/walk/more/0.png", caption=None)
    clip(tmp_path / "a" / "walk" / "dog.mp4")

    deep = Folder(tmp_path, frame_folders=True, recursive=True).read()

    assert _paths(tmp_path, deep) == ["a/walk", "a/walk/dog.mp4", "a/walk/more"]
    assert deep.records[0].remedy == "write walk.txt beside it"


def test_frames_of_a_format_that_is_not_read_are_reported(tmp_path: Path) -> None:
    (tmp_path / "walk").mkdir()
    (tmp_path / "walk" / "0.tif").touch()

    listing = Folder(tmp_path, frame_folders=True).read()

    assert [Path(issue.path).name for issue in listing.issues] == ["0.tif"]


def test_controls_and_masks_come_from_folders_of_their_own(tmp_path: Path) -> None:
    _made(tmp_path / "media", "img_1.png", "img_10.png")
    _made(tmp_path / "control", "img_1_0.png", "img_1_1.png", "img_10.png", "img.png", caption=None)
    _made(tmp_path / "masks", "img_1.jpg", caption=None)

    listing = Folder(tmp_path / "media", control=tmp_path / "control", masks=tmp_path / "masks").read()

    assert _controls(listing) == {"img_1.png": ["img_1_0.png", "img_1_1.png"], "img_10.png": ["img_10.png"]}
    assert [record.mask for record in listing.records] == [tmp_path / "masks" / "img_1.jpg", None]
    assert listing.issues == ()
    assert [str(note).rpartition("/")[2] for note in listing.notes] == [
        "img.png: belongs to no picture or clip "
        "(hint: call it like the item it is for; subfolders are the same on both sides)"
    ]


def test_what_is_not_clear_is_reported_and_left_out(tmp_path: Path) -> None:
    _made(tmp_path / "media", "a.png", "a.jpg", "b.png", "c.png")
    _made(tmp_path / "control", "a.png", "c_mask.png", caption=None)
    _made(tmp_path / "masks", "b.png", "b.jpg", caption=None)

    listing = Folder(tmp_path / "media", control=tmp_path / "control", masks=tmp_path / "masks").read()

    assert [record.path.name for record in listing.records] == ["c.png"]
    assert sorted(Path(issue.path).name for issue in listing.issues) == ["a.jpg", "a.png", "b.png", "c_mask.png"]


def test_controls_and_masks_inside_the_media_folder_are_no_items(tmp_path: Path) -> None:
    _made(tmp_path, "a.png", "sub/a.png")
    _made(tmp_path, "control/a.png", "control/sub/a.png", "masks/sub/a.png", caption=None)

    source = Folder(
        tmp_path, recursive=True, frame_folders=False, control=tmp_path / "control", masks=tmp_path / "masks"
    )
    listing = source.read()

    assert _paths(tmp_path, listing) == ["a.png", "sub/a.png"]
    assert [record.controls["control"][0].relative_to(tmp_path).as_posix() for record in listing.records] == [
        "control/a.png",
        "control/sub/a.png",
    ]
    assert [record.mask is not None for record in listing.records] == [False, True]


def test_a_control_folder_inside_is_no_clip_of_frames(tmp_path: Path) -> None:
    _made(tmp_path, "a.png")
    _made(tmp_path, "control/a.png", caption=None)

    listing = Folder(tmp_path, frame_folders=True, control=tmp_path / "control").read()

    assert _controls(listing) == {"a.png": ["a.png"]}


def test_a_media_folder_inside_the_control_folder_is_no_control(tmp_path: Path) -> None:
    _made(tmp_path, "targets/a.png")
    _made(tmp_path, "a.png", caption=None)

    listing = Folder(tmp_path / "targets", recursive=True, control=tmp_path).read()

    assert [record.controls["control"] for record in listing.records] == [(tmp_path / "a.png",)]
    assert listing.notes == ()


def test_a_clips_control_may_be_a_folder_of_frames(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    clip(tmp_path / "media" / "dog.mp4")
    _made(tmp_path / "control", "dog/0.png", caption=None)

    listing = Folder(tmp_path / "media", control=tmp_path / "control").read()

    assert _controls(listing) == {"dog.mp4": ["dog"]}
    assert listing.notes == ()


def test_a_control_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    _made(tmp_path, "a.png")

    with pytest.raises(DataError, match="nowhere"):
        Folder(tmp_path, control=tmp_path / "nowhere").read()


@pytest.mark.parametrize("folders", [{"control": "a"}, {"masks": "a/."}, {"control": "b", "masks": "b"}])
def test_one_folder_cannot_be_two_things(folders: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="is given twice"):
        Folder("a", control=folders.get("control"), masks=folders.get("masks"))


@pytest.mark.parametrize("extension", ["", "txt", "captions/.txt", ".t\0xt"])
def test_a_caption_extension_that_ends_no_file_name_is_refused(extension: str) -> None:
    with pytest.raises(ConfigError, match=r"caption_extension: must"):
        Folder("a", caption_extension=extension)


def test_a_folder_may_be_read_for_pictures_or_for_clips_alone(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    clip(tmp_path / "b.mp4")

    assert [record.path.name for record in Folder(tmp_path, media="image").read().records] == ["a.png"]
    assert [record.path.name for record in Folder(tmp_path, media="video").read().records] == ["b.mp4"]


def test_a_folder_without_the_wanted_kind_says_so(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")

    with pytest.raises(DataError, match="holds no clip"):
        Folder(tmp_path, media="video").read()
