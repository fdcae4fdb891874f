"""Bad input, end to end: each mistake names its file or field and the way out, and leaves nothing half-written."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from musubi import (
    AdamW,
    BlockSwap,
    ConfigError,
    Event,
    FP8Scaled,
    GradientCheckpointing,
    Image,
    LoRA,
    MusubiError,
    Request,
    Video,
    Wan,
    WanCache,
    WanDataset,
    WanPipeline,
    WanTrainer,
    Warned,
)
from musubi.testing.checkpoints import tiny_wan

FRAMES = 9


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Wan:
    return tiny_wan(tmp_path_factory.mktemp("wan"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of one good picture and one good clip."""
    return write_files(tmp_path_factory.mktemp("files") / "good")


@pytest.fixture(scope="module")
def built(wan: Wan, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "cache"
    WanCache(folder, model=wan).build(dataset(files), progress=False)
    return folder


@pytest.fixture(scope="module")
def trained(wan: Wan, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output folder of a run of two steps: a LoRA and a state."""
    output = tmp_path_factory.mktemp("trained")
    trainer(wan, built, output, steps=2).run(progress=False)
    return output


def write_files(folder: Path) -> Path:
    random = np.random.default_rng(0)
    Image(random.random((64, 64, 3))).save(folder / "picture.png")
    Video(random.random((FRAMES, 64, 64, 3)), fps=16).save(folder / "clip.mp4")
    for name in ("picture", "clip"):
        caption(folder, name, "a fox")
    return folder


def caption(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.txt").write_text(text, encoding="utf-8")


def dataset(folder: Path) -> WanDataset:
    return WanDataset.from_folder(folder, resolution=64, frames=(1, FRAMES))


def trainer(wan: Wan, cache: Path, output: Path, *, steps: int = 4) -> WanTrainer:
    return WanTrainer(model=wan, cache=WanCache(cache, model=wan), steps=steps, output=output).with_network(
        LoRA(rank=2)
    )


def draw(pipeline: WanPipeline) -> object:
    return pipeline.generate("a fox", size=(64, 64), frames=1, steps=1, guidance=1.0)


def told(attempt: Callable[[], object]) -> str:
    """Return the message of the error that must come, and make sure that it offers a way out."""
    with pytest.raises(MusubiError) as caught:
        attempt()
    return str(caught.value)


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# Data


def blank(path: Path) -> None:
    Image(np.zeros((64, 64, 3))).save(path)


def head_of(name: str, share: float, *, padded: bool = False) -> Callable[[Path], object]:
    """Return what writes the first part of a good file, and zeros in place of the rest if its length is to be kept."""

    def write(path: Path) -> object:
        data = path.with_name(name).read_bytes()
        kept = data[: int(len(data) * share)]
        return path.write_bytes(kept + bytes(len(data) - len(kept)) if padded else kept)

    return write


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "text.png": (lambda path: path.write_bytes(b"these are no pixels"), "is damaged or not a picture"),
    "half.png": (head_of("picture.png", 0.5), "is damaged or not what its name says"),
    "empty.png": (lambda path: path.write_bytes(b""), "is empty"),
    "empty.mp4": (head_of("clip.mp4", 0.0), "is damaged or not what its name says"),
    "begun.mp4": (head_of("clip.mp4", 0.05), "(hint: "),
    "half.mp4": (head_of("clip.mp4", 0.5), "(hint: "),
    "most.mp4": (head_of("clip.mp4", 0.95), "(hint: "),
    "announced.mp4": (head_of("clip.mp4", 0.6, padded=True), "(hint: "),
    "silent.png": (blank, "caption is missing (hint: write silent.txt beside it)"),
    "bytes.png": (blank, "caption is not UTF-8 (hint: save the file as UTF-8 text)"),
}


@pytest.fixture(scope="module")
def spoilt(wan: Wan, files: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[WanCache, list[str]]:
    """Return the cache of a folder with two good files and all bad ones, and what its build warned of."""
    folder = Path(shutil.copytree(files, tmp_path_factory.mktemp("spoilt") / "files"))
    warned: list[str] = []
    for name, (write, _) in BAD_FILES.items():
        write(folder / name)
        caption(folder, Path(name).stem, "a fox")
    (folder / "silent.txt").unlink()
    (folder / "bytes.txt").write_bytes(b"\xff\xfe\x00fox")

    def hear(event: Event) -> None:
        if isinstance(event, Warned):
            warned.append(event.message)

    return WanCache(folder.parent / "cache", model=wan).build(dataset(folder), on=[hear], progress=False), warned


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_listed_with_what_to_do(spoilt: tuple[WanCache, list[str]], name: str) -> None:
    cache, warned = spoilt
    named = "bytes.txt" if name == "bytes.png" else name

    told = (*cache.dropped, *cache.manifest().notes)
    about = [str(issue) for issue in told if issue.path == named]

    assert about
    assert all(BAD_FILES[name][1] in text for text in about)
    assert any(named in text for text in warned)


def test_the_good_files_among_bad_ones_are_encoded_and_nothing_is_half_written(
    spoilt: tuple[WanCache, list[str]],
) -> None:
    cache, _ = spoilt

    assert {"picture", "clip_00000-001", f"clip_00000-{FRAMES:03d}"} <= {c.item.name for c in cache.items()}
    assert cache.verify() == ()
    assert not [name for name in tree(cache.path) if ".tmp" in name]


def test_a_cache_of_nothing_but_bad_files_is_refused_and_not_begun(wan: Wan, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "bad.png").write_bytes(b"these are no pixels")
    caption(tmp_path / "files", "bad", "a fox")

    text = told(lambda: WanCache(tmp_path / "cache", model=wan).build(dataset(tmp_path / "files"), progress=False))

    assert "bad.png" in text
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("place", ["empty", "absent", "file"])
def test_a_source_that_holds_nothing_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("", encoding="utf-8")

    text = told(dataset(tmp_path / place).scan)

    assert f"/{place}: " in text
    assert "(hint: " in text


def test_a_broken_line_is_named_by_its_number_and_the_others_are_used(files: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    good = f'{{"image_path": "{(files / "picture.png").as_posix()}", "caption": "a fox"}}'
    rows.write_text(f'{good}\n{{"image_path": \n{{"image_path": "nowhere.png", "caption": ""}}\n', encoding="utf-8")

    scan = WanDataset.from_jsonl(rows, resolution=64).scan()

    assert len(scan.items) == 1
    assert [issue.path.rpartition("/")[2] for issue in scan.dropped] == ["rows.jsonl:2", "rows.jsonl:3"]
    assert all(issue.hint for issue in scan.dropped)


def test_any_name_any_size_and_any_length_of_caption_goes_through(wan: Wan, files: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(files, tmp_path / "sp ace [x] ünï 漢字 {a}"))
    for i, size in enumerate([(20, 300), (500, 30), (1, 1)]):
        Image(np.zeros((size[1], size[0], 3))).save(folder / f"odd [{i}].png")
        caption(folder, f"odd [{i}]", "word " * (600 if i == 0 else 1))

    cache = WanCache(tmp_path / "cäche [1]", model=wan).build(dataset(folder).with_batch_size(4), progress=False)
    run = trainer(wan, cache.path, tmp_path / "öut [1]", steps=3).run(progress=False)

    assert cache.dropped == ()
    assert len(cache.items()) == 6
    assert np.isfinite(run.losses).all()


# Configurations


def configured(wan: Wan) -> WanTrainer:
    cache = WanCache("cache", model=wan)
    asked = Request("a fox", size=(64, 64), frames=1)
    return WanTrainer(model=wan, cache=cache, steps=1600).with_samples(asked).with_memory(GradientCheckpointing())


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("steps =", "stepz =", "stepz: unknown key; did you mean 'steps'?"),
        ("weight_decay =", "weight_dekay =", "optimizer.weight_dekay: unknown key; did you mean 'weight_decay'?"),
        ("prompt =", "promt =", "samples[0].promt: unknown key; did you mean 'prompt'?"),
        ('kind = "gradient_checkpointing"', 'kind = "gradient_chekpointing"', "memory[0].kind: "),
        ('task = "t2v_1_3b"', 'task = "i2v_1_3b"', "model.task: must be one of t2v_1_3b, t2v_14b"),
        ("steps = 1600", 'steps = "1600"', "steps: must be a whole number, got '1600'"),
        ("    64,\n", "    60,\n", "samples[0].size: width and height must be multiples of 16, got 60x64"),
        ("frames = 1\n", "frames = 2\n", "samples[0].frames: must be 4 * k + 1, got 2"),
    ],
)
def test_a_slip_in_a_trainers_file_is_named_by_its_path(
    wan: Wan, tmp_path: Path, right: str, wrong: str, says: str
) -> None:
    path = configured(wan).save(tmp_path / "run.toml")
    path.write_text(path.read_text(encoding="utf-8").replace(right, wrong, 1), encoding="utf-8")

    text = told(lambda: WanTrainer.load(path))

    assert "run.toml" in text
    assert says in text


def test_all_slips_in_the_files_of_a_dataset_and_a_pipeline_are_listed_at_once(wan: Wan) -> None:
    clips = dataset(Path("clips")).to_toml().replace("batch_size", "batchsize").replace('kind = "folder"', 'kind = "f"')
    pipeline = WanPipeline(model=wan).with_lora("fox.safetensors").to_toml().replace("weight =", "wieght =")

    assert refused(lambda: WanDataset.from_toml(clips)) == ["batchsize", "sources[0].kind"]
    assert "did you mean 'weight'?" in told(lambda: WanPipeline.from_toml(pipeline))


def refused(attempt: Callable[[], object]) -> list[str]:
    """Return the fields that a configuration error names."""
    with pytest.raises(ConfigError) as caught:
        attempt()
    return [issue.path for issue in caught.value.issues]


WRONG_VALUES: list[tuple[Callable[[Wan], object], str]] = [
    (lambda _: dataset(Path("x")).replace(resolution=(60, 64), bucketing=False), "resolution"),
    (lambda _: dataset(Path("x")).replace(resolution="64x64"), "resolution"),
    (lambda _: dataset(Path("x")).replace(resolution=(64,)), "resolution"),
    (lambda _: dataset(Path("x")).replace(frames=(1, 8)), "frames[1]"),
    (lambda _: dataset(Path("x")).replace(frames=("nine",)), "frames[0]"),
    (lambda _: Request("a fox", size=64), "size"),  # type: ignore[arg-type]
    (lambda _: Request(3), "prompt"),  # type: ignore[arg-type]
    (lambda wan: configured(wan).with_network("lora"), "network"),  # type: ignore[arg-type]
    (lambda wan: configured(wan).replace(optimizer=AdamW), "optimizer"),
    (lambda wan: configured(wan).with_memory(FP8Scaled), "memory[0]"),  # type: ignore[arg-type]
    (lambda wan: configured(wan).with_memory(FP8Scaled(), FP8Scaled()), "memory[1]"),
    (lambda wan: configured(wan).with_memory(BlockSwap(blocks=99)), "memory[0].blocks"),
    (lambda wan: configured(wan).replace(output=3), "output"),
    (lambda wan: configured(wan).replace(cache="cache"), "cache"),
    (lambda wan: WanCache(None, model=wan), "path"),  # type: ignore[arg-type]
    (lambda wan: WanPipeline(model=wan).with_lora(3), "loaded"),  # type: ignore[arg-type]
    (lambda wan: wan.with_weights(dti="x.safetensors"), "weights.dti"),
    (lambda wan: WanPipeline(model=wan).generate("a fox", size=(60, 64), frames=1), "size"),
    (lambda wan: WanPipeline(model=wan).generate("a fox", size=(64, 64), frames=8), "frames"),
    (lambda wan: draw(WanPipeline(model=wan, device="cud")), "device"),
]


@pytest.mark.parametrize(("attempt", "field"), WRONG_VALUES)
def test_a_wrong_value_names_its_field_where_it_is_given(
    wan: Wan, attempt: Callable[[Wan], object], field: str
) -> None:
    assert refused(lambda: attempt(wan)) == [field]


# Checkpoints


class Malice:
    """Runs a command when a careless program unpickles it."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("pwned",)


def transformer(wan: Wan) -> dict[str, Tensor]:
    return load_file(wan.weight("dit").resolve())


def image_to_video(wan: Wan) -> dict[str, Tensor]:
    tensors = transformer(wan)
    shape = tensors["patch_embedding.weight"].shape
    return {**tensors, "patch_embedding.weight": torch.zeros(shape[0], 36, *shape[2:])}


def incomplete(wan: Wan) -> dict[str, Tensor]:
    tensors = transformer(wan)
    del tensors["blocks.0.ffn.0.weight"]
    return tensors


def strangers(wan: Wan) -> dict[str, Tensor]:
    return {"double_blocks.0.img_attn_qkv.weight": torch.zeros(2, 2)}


def noise(wan: Wan) -> dict[str, Tensor]:
    return {"a.weight": torch.zeros(2, 2), "b": torch.zeros(1)}


def heads(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, path, metadata={"wan.num_heads": "2"})


BAD_WEIGHTS: dict[str, Callable[[Path, Wan], object]] = {
    "random.safetensors": lambda path, wan: heads(path, noise(wan)),
    "empty.safetensors": lambda path, _: path.write_bytes(b""),
    "text.safetensors": lambda path, _: path.write_text("no weights " * 9, encoding="utf-8"),
    "cut.safetensors": lambda path, wan: path.write_bytes(wan.weight("dit").resolve().read_bytes()[:-9]),
    "hunyuan.safetensors": lambda path, wan: heads(path, strangers(wan)),
    "i2v.safetensors": lambda path, wan: heads(path, image_to_video(wan)),
    "incomplete.safetensors": lambda path, wan: heads(path, incomplete(wan)),
    "absent.safetensors": lambda _, __: None,
    "text.pth": lambda path, _: path.write_text("no weights " * 9, encoding="utf-8"),
    "evil.pth": lambda path, _: torch.save({"a": Malice()}, path),
    "old_evil.pth": lambda path, _: path.write_bytes(pickle.dumps({"a": Malice()})),
    "weights.txt": lambda path, _: path.write_text("", encoding="utf-8"),
}


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_a_checkpoint_that_does_not_fit_is_named_before_anything_is_written(
    wan: Wan, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    BAD_WEIGHTS[name](path, wan)
    wrong = wan.with_weights(dit=path)

    for attempt in (trainer(wrong, built, tmp_path / "output").plan, trainer(wrong, built, tmp_path / "output").run):
        text = told(attempt)
        assert name in text
        assert "(hint: " in text

    assert not (tmp_path / "output").exists()
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("component", ["vae", "t5"])
def test_wrong_encoders_are_refused_before_anything_is_encoded_with_the_right_ones(
    wan: Wan, files: Path, tmp_path: Path, component: str
) -> None:
    wrong = wan.with_weights(**{component: wan.weight("dit").location})

    text = told(lambda: WanCache(tmp_path / "cache", model=wrong).build(dataset(files), progress=False))

    assert f"wrong weights for '{component}'" in text
    assert not WanCache(tmp_path / "cache", model=wan).exists
    assert not list((tmp_path / "cache").glob("*.safetensors"))


def test_a_lora_of_another_model_is_named_with_its_strangers(wan: Wan, trained: Path, tmp_path: Path) -> None:
    renamed = {key.replace("blocks", "double_blocks"): t for key, t in load_file(trained / "lora.safetensors").items()}
    save_file(renamed, tmp_path / "foreign.safetensors")

    text = told(lambda: draw(WanPipeline(model=wan).with_lora(tmp_path / "foreign.safetensors")))

    assert "foreign.safetensors" in text
    assert "double_blocks.0" in text
    assert "did you mean 'blocks.0" in text


@pytest.mark.parametrize("name", ["random.safetensors", "empty.safetensors", "absent.safetensors", "evil.pth"])
def test_a_file_that_is_no_lora_is_named(wan: Wan, tmp_path: Path, name: str) -> None:
    BAD_WEIGHTS[name](tmp_path / name, wan)

    text = told(lambda: draw(WanPipeline(model=wan).with_lora(tmp_path / name)))

    assert name in text
    assert "(hint: " in text


# Caches, outputs and states


def lose_an_entry(folder: Path) -> None:
    next(folder.glob("*_te.safetensors")).unlink()


def change_an_entry(folder: Path) -> None:
    entry = next(folder.glob("*_te.safetensors"))
    entry.write_bytes(entry.read_bytes()[:-1] + b"!")


def cut_an_entry(folder: Path) -> None:
    entry = next(folder.glob("*_te.safetensors"))
    entry.write_bytes(entry.read_bytes()[:-1])


def break_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("[1, 2", encoding="utf-8")


@pytest.mark.parametrize("spoil", [lose_an_entry, cut_an_entry, change_an_entry, break_the_manifest, shutil.rmtree])
def test_a_damaged_cache_is_refused_and_building_again_mends_it(
    wan: Wan, files: Path, built: Path, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    cache = Path(shutil.copytree(built, tmp_path / "cache"))
    spoil(cache)

    text = told(lambda: trainer(wan, cache, tmp_path / "output").run(progress=False))

    assert "/cache" in text
    assert "build" in text
    if spoil is change_an_entry:  # only reading it tells
        assert len(WanCache(cache, model=wan).verify()) == 1
    else:
        assert not (tmp_path / "output").exists()
        WanCache(cache, model=wan).build(dataset(files), progress=False)
        assert WanCache(cache, model=wan).verify() == ()


def test_a_cache_of_other_encoders_fails_with_the_item_and_the_way_out(wan: Wan, built: Path, tmp_path: Path) -> None:
    cache = Path(shutil.copytree(built, tmp_path / "cache"))
    other = transformer(wan)
    other["text_embedding.0.weight"] = torch.zeros(len(other["text_embedding.0.weight"]), 48)
    heads(tmp_path / "dit.safetensors", other)

    wrong = wan.with_weights(dit=tmp_path / "dit.safetensors")
    text = told(lambda: trainer(wrong, cache, tmp_path / "output").run(progress=False))

    assert "step 1" in text
    assert "this trainer's model" in text


def test_an_output_that_cannot_be_written_is_refused_before_training(wan: Wan, built: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")

    for output in (tmp_path / "file", tmp_path / "file" / "folder"):
        assert "/file" in told(lambda place=output: trainer(wan, built, place).run(progress=False))  # type: ignore[misc]

    assert tree(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused_before_training(wan: Wan, built: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    text = told(lambda: trainer(wan, built, tmp_path / "output").run(progress=False))

    assert "Permission denied" in text


@pytest.mark.parametrize("what", ["absent", "folder", "lora", "latest", "optimizer.pt", "run.json"])
def test_what_is_no_state_is_not_resumed(wan: Wan, built: Path, trained: Path, tmp_path: Path, what: str) -> None:
    (tmp_path / "folder").mkdir()
    state = Path(shutil.copytree(trained / "lora-state", tmp_path / "state"))
    places: dict[str, Path | str] = {"lora": trained / "lora.safetensors", "latest": "latest"}
    if (state / what).is_file():
        (state / what).write_text("{}", encoding="utf-8")
        places[what] = state

    again = trainer(wan, built, tmp_path / "output")
    text = told(lambda: again.run(resume=places.get(what, tmp_path / what), progress=False))

    assert "cannot resume" in text
    assert "(hint: " in text
    assert not (tmp_path / "output").exists()


def test_a_state_of_another_trainer_names_the_fields_that_differ(
    wan: Wan, built: Path, trained: Path, tmp_path: Path
) -> None:
    other = trainer(wan, built, tmp_path / "output").with_network(LoRA(rank=3)).replace(seed=5)

    assert refused(lambda: other.run(resume=trained / "lora-state", progress=False)) == ["network", "seed"]
