from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest

from musubi import Cache, Dataset
from musubi.cache import manifest as manifests
from musubi.cache.manifest import CachedFile, CachedItem, Manifest, Output
from musubi.core.errors import CacheError, Issue
from musubi.data.sample import Control, Item, Window
from musubi.testing.toy import Toy
from tests.data.files import picture

FILE = CachedFile(name="a.safetensors", bytes=8, sha256="00", key="latents:1x2x3")
ITEM = Item(
    name="ä_00000-005",
    media="ä",
    path=Path("d/ä.mp4"),
    kind="video",
    captions=("words", "other words"),
    size=(64, 48),
    bucket=(32, 32),
    window=Window(0, 5),
    controls={"control": (Control(path=Path("x.png"), bucket=(16, 16)),)},
)
MANIFEST = Manifest(
    architecture="toy",
    dtype="float32",
    dataset="abc",
    stages=("latents",),
    items=(CachedItem(item=ITEM, outputs={"latents": ("f",)}),),
    outputs={"f": Output(stage="latents", fingerprint="f", files=(FILE,))},
    problems=(Issue("b.png", "is damaged", "remove it"),),
    notes=(Issue("c.png", "enlarged", ""),),
)


def test_a_manifest_survives_its_file(tmp_path: Path) -> None:
    manifests.save(tmp_path, MANIFEST)

    assert manifests.load(tmp_path) == MANIFEST


def test_every_item_and_output_has_a_line(tmp_path: Path) -> None:
    manifests.save(tmp_path, MANIFEST)

    lines = (tmp_path / "manifest.json").read_text(encoding="utf-8").splitlines()
    assert [line.startswith('{"name":"ä_00000-005"') for line in lines].count(True) == 1
    assert [line.startswith('{"stage":"latents","fingerprint":"f"') for line in lines].count(True) == 1


def test_a_folder_without_manifest_says_what_to_call(tmp_path: Path) -> None:
    assert not manifests.exists(tmp_path)
    assert manifests.architecture_of(tmp_path) is None
    with pytest.raises(CacheError, match=r"not built yet.*call \.build\(dataset\) first"):
        manifests.load(tmp_path)


def test_whose_it_is_can_be_told_from_its_beginning(tmp_path: Path) -> None:
    manifests.save(tmp_path, MANIFEST)

    assert manifests.architecture_of(tmp_path) == "toy"
    assert manifests.dtype_of(tmp_path) == MANIFEST.dtype


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "{}", '{"items": 3}', '{"format": 2, "architecture": null}', '{"format": 2}', "[" * 100_000],
)
def test_a_damaged_manifest_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")

    with pytest.raises(CacheError, match=r"manifest\.json"):
        manifests.load(tmp_path)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("outputs", 0, "files", 0, 0), "../../home/a.safetensors"),
        (("outputs", 0, "files", 0, 0), ".."),
        (("outputs", 0, "files", 0, 1), "many"),
        (("outputs", 0, "files"), []),
        (("outputs", 0, "stage"), None),
        (("outputs",), []),
        (("items", 0, "name"), 3),
        (("items", 0, "captions"), []),
        (("items", 0, "captions"), "words"),
        (("items", 0, "kind"), "film"),
        (("items", 0, "split"), "test"),
        (("items", 0, "bucket"), [32]),
        (("items", 0, "outputs", "latents"), "f"),
        (("items", 0, "outputs"), {"latents": []}),
        (("items", 0, "controls"), [3]),
        (("problems", 0), ["too", "few"]),
    ],
)
def test_a_manifest_with_a_wrong_value_is_an_error_that_names_it(
    tmp_path: Path, path: tuple[str | int, ...], value: object
) -> None:
    values = json.loads(json.dumps(manifests.plain(MANIFEST)))
    place = values
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    (tmp_path / "manifest.json").write_text(json.dumps(values), encoding="utf-8")

    with pytest.raises(CacheError, match=r"manifest\.json"):
        manifests.load(tmp_path)


@pytest.mark.parametrize("version", [1, 99, None])
def test_a_manifest_of_another_version_is_refused(tmp_path: Path, version: int | None) -> None:
    values = {**manifests.plain(MANIFEST), "format": version}
    (tmp_path / "manifest.json").write_text(json.dumps(values), encoding="utf-8")

    with pytest.raises(CacheError, match=f"has format {version}, this version reads 2"):
        manifests.load(tmp_path)


def test_the_content_hash_follows_what_training_sees_and_nothing_else() -> None:
    cached = MANIFEST.items[0]
    held_out = CachedItem(item=attrs.evolve(ITEM, name="b", split="validation"), outputs=cached.outputs)
    same = attrs.evolve(MANIFEST, items=(cached, held_out), problems=(), notes=(), dataset="other")
    renamed = attrs.evolve(MANIFEST.outputs["f"], files=(attrs.evolve(FILE, name="b.safetensors"),))
    other = attrs.evolve(MANIFEST.outputs["f"], files=(attrs.evolve(FILE, sha256="01"),))
    drawn = [attrs.evolve(ITEM, **change) for change in ({"repeats": 2}, {"weight": 0.5}, {"dropout": 0.1})]

    assert same.content == attrs.evolve(MANIFEST, outputs={"f": renamed}).content == MANIFEST.content
    assert attrs.evolve(MANIFEST, outputs={"f": other}).content != MANIFEST.content
    for item in drawn:
        changed = CachedItem(item=item, outputs=cached.outputs)
        assert attrs.evolve(MANIFEST, items=(changed,)).content != MANIFEST.content


def test_buckets_splits_and_bytes_are_summed() -> None:
    assert (MANIFEST.buckets, MANIFEST.splits, MANIFEST.bytes) == ({"32x32x5": 1}, {"train": 1}, 8)


def test_no_file_of_a_cache_holds_an_absolute_path(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    picture(tmp_path / "pictures" / "fox.png")
    picture(tmp_path / "pictures" / "bad.png").write_bytes(b"no picture")
    data = Dataset.from_folder(tmp_path / "pictures", resolution=32)

    cache = Cache(tmp_path / "cache", model=Toy()).build(data, progress=False)

    assert [issue.path for issue in cache.dropped] == ["bad.png"]
    assert not [file.name for file in cache.path.iterdir() if str(tmp_path).encode() in file.read_bytes()]
