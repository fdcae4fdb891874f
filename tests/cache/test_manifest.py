from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest

from musubi import Cache, Dataset
from musubi.cache import manifest as manifests
from musubi.cache.manifest import CachedFile, CachedItem, Manifest, Output
from musubi.core.errors import CacheError, Issue
from musubi.data.sample import Item, Window
from musubi.testing.toy import Toy
from tests.data.files import picture

FILE = CachedFile(name="a.safetensors", bytes=8, sha256="00", key="latents:1x2x3")
ITEM = Item(
    name="ä_00000-005",
    media="ä",
    path=Path("d/ä.mp4"),
    kind="video",
    caption="words",
    size=(64, 48),
    bucket=(32, 32),
    window=Window(0, 5),
    controls={"control": (Path("x.png"),)},
)
MANIFEST = Manifest(
    architecture="toy",
    dtype="float32",
    dataset="abc",
    stages=("latents",),
    items=(CachedItem(item=ITEM, outputs={"latents": "a"}),),
    outputs={"a": Output(stage="latents", fingerprint="f", files=(FILE,))},
    problems=(Issue("b.png", "is damaged", "remove it"),),
)


def test_a_manifest_survives_its_file(tmp_path: Path) -> None:
    manifests.save(tmp_path, MANIFEST)

    assert manifests.load(tmp_path) == MANIFEST


def test_a_folder_without_manifest_says_what_to_call(tmp_path: Path) -> None:
    assert not manifests.exists(tmp_path)
    with pytest.raises(CacheError, match=r"not built yet.*call \.build\(dataset\) first"):
        manifests.load(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"items": 3}', '{"format": 1, "architecture": null}'])
def test_a_damaged_manifest_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")

    with pytest.raises(CacheError, match=r"manifest\.json"):
        manifests.load(tmp_path)


def test_a_manifest_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    manifests.save(tmp_path, MANIFEST)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "format": 99}), encoding="utf-8")

    with pytest.raises(CacheError, match="has format 99"):
        manifests.load(tmp_path)


def test_the_content_hash_follows_what_training_sees_and_nothing_else() -> None:
    output = Output(stage="latents", fingerprint="other", files=(FILE,))
    same = attrs.evolve(MANIFEST, outputs={"a": output}, problems=(), dataset="other")
    more = CachedItem(item=attrs.evolve(ITEM, repeats=2), outputs={"latents": "a"})
    other = attrs.evolve(output, files=(attrs.evolve(FILE, sha256="01"),))

    assert same.content == MANIFEST.content
    assert attrs.evolve(MANIFEST, items=(more,)).content != MANIFEST.content
    assert attrs.evolve(MANIFEST, outputs={"a": other}).content != MANIFEST.content


def test_buckets_and_bytes_are_summed() -> None:
    assert (MANIFEST.buckets, MANIFEST.bytes) == ({"32x32x5": 1}, 8)


def test_no_file_of_a_cache_holds_an_absolute_path(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    picture(tmp_path / "pictures" / "fox.png")
    picture(tmp_path / "pictures" / "bad.png").write_bytes(b"no picture")
    data = Dataset.from_folder(tmp_path / "pictures", resolution=32)

    cache = Cache(tmp_path / "cache", model=Toy()).build(data, progress=False)

    assert [issue.path for issue in cache.dropped] == ["bad.png"]
    assert not [file.name for file in cache.path.iterdir() if str(tmp_path).encode() in file.read_bytes()]
