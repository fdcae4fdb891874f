from __future__ import annotations

from pathlib import Path

import torch

from musubi import Wan
from musubi.cache.manifest import Manifest
from musubi.compat.cache_entry import IMPORTED, Entry, manifest_of
from musubi.compat.cache_file import read_cache_file, read_latent_file
from musubi.data.sample import Window
from tests.compat import reference_files as files

WAN = Wan.t2v_14b()


def entry(folder: Path, stem: str, *, caption: str = "words", dtype: torch.dtype = torch.bfloat16) -> Entry:
    latents = files.window(folder, stem, dtype=dtype)
    text = files.text(folder, stem, caption)
    return reread(latents, text)


def reread(latents: Path, text: Path) -> Entry:
    read = read_latent_file(latents, model=WAN)
    name = f"{read.name.stem}_{read.name.window}"
    return Entry(name=name, latents=[read], text=read_cache_file(text, model=WAN, text=True))


def manifest(*entries: Entry) -> Manifest:
    return manifest_of(entries, WAN, batch_size=1, repeats=1, problems=[], notes=[])


def test_an_item_is_what_a_build_would_have_listed(tmp_path: Path) -> None:
    item = entry(tmp_path, "clip", caption="a fox").item(WAN, batch_size=2, repeats=3)

    assert (item.name, item.media, item.kind, item.window) == ("clip_00000-005", "clip", "video", Window(0, 5))
    assert (item.captions, item.bucket, item.bucket_label) == (("a fox",), (64, 48), "64x48x5")
    assert (item.batch_size, item.repeats, item.split) == (2, 3, "train")


def test_a_picture_keeps_its_own_size_beside_its_bucket(tmp_path: Path) -> None:
    latents = read_latent_file(files.picture(tmp_path, "cat", size=(1000, 700), bucket=(80, 48)), model=WAN)
    text = read_cache_file(files.text(tmp_path, "cat"), model=WAN, text=True)

    item = Entry(name="cat", latents=[latents], text=text).item(WAN, batch_size=1, repeats=1)

    assert (item.kind, item.size, item.bucket) == ("image", (1000, 700), (80, 48))


def test_a_manifest_lists_every_file_under_the_models_stages(tmp_path: Path) -> None:
    made = manifest(entry(tmp_path, "a"), entry(tmp_path, "b"))

    assert made.stages == ("latents", "text")
    assert made.dtype == "bfloat16"
    assert sorted(file.name for file in made.files) == sorted(path.name for path in tmp_path.iterdir())
    for cached in made.items:
        assert {stage: len(prints) for stage, prints in cached.outputs.items()} == {"latents": 1, "text": 1}


def test_a_fingerprint_tells_content_and_cannot_be_a_builds(tmp_path: Path) -> None:
    latents, text = files.window(tmp_path, "a"), files.text(tmp_path, "a", "one caption")
    before, again = (manifest(reread(latents, text)) for _ in range(2))
    after = manifest(reread(latents, files.text(tmp_path, "a", "another")))

    assert before.outputs.keys() == again.outputs.keys()
    assert len(before.outputs.keys() & after.outputs.keys()) == 1, "the latents are the same, the text is not"
    assert all(fingerprint.startswith(IMPORTED) for fingerprint in before.outputs)


def test_the_type_of_most_latents_is_the_one_that_a_build_goes_on_in(tmp_path: Path) -> None:
    dtypes = {"a": torch.bfloat16, "b": torch.float16, "c": torch.float16}
    entries = [entry(tmp_path, stem, dtype=dtype) for stem, dtype in dtypes.items()]

    assert manifest(*entries).dtype == "float16"
