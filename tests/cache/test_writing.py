from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from musubi.cache import writing
from musubi.core.errors import CacheError
from musubi.data.dataset import Dataset
from tests.cache.counting import build, contents
from tests.data.files import picture

ROOT = Path(__file__).parents[2]
FULL = """
import resource, sys
from tests.cache.counting import build
from musubi.core.errors import CacheError
from musubi.data.dataset import Dataset

resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))
try:
    build(sys.argv[2], Dataset.from_folder(sys.argv[1], resolution=512, no_upscale=True, frames=(1, 5, 9)))
except CacheError as error:
    print(error)
"""


def test_a_file_is_written_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    writing.place(tmp_path / "a.safetensors", b"one")
    writing.place(tmp_path / "a.safetensors", b"two")
    writing.sync(tmp_path, ["a.safetensors"])

    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.safetensors", b"two")]


@pytest.mark.parametrize("write", [writing.place, writing.write])
def test_what_cannot_be_written_is_an_error_that_names_it(tmp_path: Path, write: object) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert callable(write)

    with pytest.raises(CacheError, match=r"cannot write: .*a\.safetensors.* then build again: it goes on from here"):
        write(tmp_path / "file" / "a.safetensors", b"")


def test_a_folder_is_made_unless_a_file_is_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")

    writing.make_folder(tmp_path / "a" / "b")

    assert (tmp_path / "a" / "b").is_dir()
    with pytest.raises(CacheError, match="is a file, not a folder"):
        writing.make_folder(tmp_path / "file")
    with pytest.raises(CacheError, match="cannot write"):
        writing.make_folder(tmp_path / "file" / "c")


def test_only_our_temporary_files_are_swept(tmp_path: Path) -> None:
    ours = [".cat_toy_te.0123456789ab.tmp.safetensors", ".manifest.ba9876543210.tmp.json", ".x\ny.0123456789ab.tmp"]
    others = [".cat.tmp.safetensors", "cat.0123456789ab.tmp.safetensors", ".cat.0123456789ab.tmp.safetensors.bak"]
    for name in ours + others:
        (tmp_path / name).write_bytes(b"")

    assert writing.temporaries(tmp_path) == sorted(ours)
    writing.sweep(tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files")
def test_a_build_that_cannot_write_an_entry_keeps_the_others_and_is_continued(
    tmp_path: Path, media: Path, dataset: Dataset
) -> None:
    picture(media / "zebra.png", size=(512, 512), caption="a zebra")
    large = dataset.replace(resolution=(512, 512), no_upscale=True)

    full = subprocess.run(
        [sys.executable, "-c", FULL, media, tmp_path / "c"],
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    before = {path.name for path in (tmp_path / "c").glob("*")}
    log = build(tmp_path / "c", large)

    assert "cannot write" in full.stdout
    assert "zebra_0512x0512_toy.safetensors" in full.stdout
    assert "free some space, then build again" in full.stdout
    assert {"cat_0064x0064_toy.safetensors", "dog_00000-005_0064x0064_toy.safetensors"} <= before
    assert not {"manifest.json", "zebra_0512x0512_toy.safetensors"} & before
    assert "latents cat" not in log
    build(tmp_path / "undisturbed", large)
    assert contents(tmp_path / "c") == contents(tmp_path / "undisturbed")
