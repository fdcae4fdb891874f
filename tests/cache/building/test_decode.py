from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import pytest
import torch

from musubi.architecture import Stage
from musubi.batch import Sample
from musubi.cache.building.decode import Decoder, Failed, is_out_of_memory
from musubi.cache.building.jobs import Job
from musubi.cache.building.masks import MASK
from musubi.cache.building.memory import stamp_of
from musubi.data.media.loading import load_sample
from musubi.data.sample import Control, Window
from tests.cache.making import LATENTS, TEXT, a_job, an_item
from tests.data.files import clip, picture

SEEN = Stage(name="latents", components=(), reads=("pixels", "controls"))


def _sample(decode: Decoder, job: Job) -> Sample:
    found = decode(job)
    assert isinstance(found, Sample)
    return found


def test_a_stage_gets_what_it_reads_and_no_more(tmp_path: Path) -> None:
    cat = picture(tmp_path / "cat.png", size=(64, 64))
    controls = {"control": (Control(path=cat, bucket=(32, 32)),)}
    item = an_item(path=cat, controls=controls, mask=cat)

    found = {s.reads: _sample(Decoder(s, [a_job(item, s)]), a_job(item, s)) for s in (LATENTS, TEXT, SEEN, MASK)}

    there = {reads: (f.pixels is not None, bool(f.controls), f.mask is not None) for reads, f in found.items()}
    assert list(there.values()) == [
        (True, False, False),
        (False, False, False),
        (True, True, False),
        (False, False, True),
    ]
    assert found[TEXT.reads].caption == "a cat"


def test_a_further_caption_has_a_name_of_its_own(tmp_path: Path) -> None:
    job = attrs.evolve(a_job(an_item(), TEXT), caption="other", name="cat, caption 2")

    sample = _sample(Decoder(TEXT, [job]), job)

    assert (sample.name, sample.caption) == ("cat, caption 2", "other")


def test_windows_of_clips_are_the_same_whatever_the_order_and_the_threads(tmp_path: Path) -> None:
    clips = [clip(tmp_path / f"{n}.mp4", frames=40, size=(64, 64)) for n in range(2)]
    items = [
        an_item(f"{path.stem}_{start}", path=path, kind="video", window=Window(start, 5))
        for path in clips
        for start in range(0, 30, 3)
    ]
    jobs = [a_job(item) for item in items]
    decode = Decoder(LATENTS, jobs)

    with ThreadPoolExecutor(4) as pool:
        samples = list(pool.map(decode, [*reversed(jobs), *jobs]))

    for item, sample in zip([*reversed(items), *items], samples, strict=True):
        expected = load_sample(item).pixels
        assert isinstance(sample, Sample)
        assert sample.pixels is not None
        assert expected is not None
        assert torch.equal(sample.pixels, expected)


def test_a_damaged_file_is_a_failure_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"nonsense")
    job = a_job(an_item(path=tmp_path / "cat.png"))

    failed = Decoder(LATENTS, [job])(job)

    assert isinstance(failed, Failed)
    assert [Path(issue.path).name for issue in failed.issues] == ["cat.png"]


def test_a_file_changed_since_it_was_hashed_is_a_failure(tmp_path: Path) -> None:
    cat = picture(tmp_path / "cat.png", size=(64, 64))
    job = attrs.evolve(a_job(an_item(path=cat)), sources=((cat, stamp_of(cat)),))
    picture(cat, size=(64, 64), seed=5)

    failed = Decoder(LATENTS, [job])(job)

    assert isinstance(failed, Failed)
    assert failed.issues[0].message == "was changed while the cache was built"


def test_what_does_not_fit_into_memory_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = a_job(an_item(path=picture(tmp_path / "cat.png")))

    real = torch.empty

    def greedy(*sizes: object, dtype: torch.dtype) -> torch.Tensor:
        return real(2**60, dtype=dtype)

    monkeypatch.setattr(torch, "empty", greedy)
    failed = Decoder(LATENTS, [job])(job)

    assert isinstance(failed, Failed)
    assert failed.issues[0].message == "needs more memory than there is"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("shapes do not match"), False),
    ],
)
def test_what_says_that_there_is_no_more_memory_is_known(error: MemoryError | RuntimeError, *, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def test_captions_of_one_item_see_the_same_pictures_in_all_threads(tmp_path: Path) -> None:
    edit = Stage(name="edit", components=(), reads=("caption", "controls"))
    cat = picture(tmp_path / "cat.png", size=(256, 256))
    item = an_item(path=cat, controls={"control": (Control(path=cat, bucket=(64, 64)),)})
    jobs = [attrs.evolve(a_job(item, edit), name=f"cat, caption {n}") for n in range(40)]
    decode = Decoder(edit, jobs)

    with ThreadPoolExecutor(8) as pool:
        samples = [found for found in pool.map(decode, jobs) if isinstance(found, Sample)]

    assert [sample.name for sample in samples] == [job.name for job in jobs]
    assert all(torch.equal(s.controls["control"][0], samples[0].controls["control"][0]) for s in samples)
