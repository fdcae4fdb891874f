from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from musubi.cache.building.batches import batches_of
from musubi.data.sample import Window
from tests.cache.making import LATENTS, TEXT, a_job, an_item

shapes = st.lists(st.tuples(st.sampled_from([64, 512, 2048]), st.sampled_from([1, 5, 81])), max_size=60)


@given(shapes=shapes)
def test_every_job_is_in_one_batch_of_equal_shapes_that_fits(shapes: list[tuple[int, int]]) -> None:
    jobs = [
        a_job(an_item(str(n), kind="video", bucket=(side, side), window=Window(0, frames)))
        for n, (side, frames) in enumerate(shapes)
    ]

    batches = batches_of(jobs)

    assert sorted(job.name for batch in batches for job in batch.jobs) == sorted(job.name for job in jobs)
    assert [batch.number for batch in batches] == list(range(len(batches)))
    for batch in batches:
        assert len({job.shape for job in batch.jobs}) == 1
        assert [int(job.name) for job in batch.jobs] == sorted(int(job.name) for job in batch.jobs)
        pixels = sum(job.pixels for job in batch.jobs)
        assert batch.bytes == 3 * pixels
        assert len(batch.jobs) == 1 or (pixels <= 2**20 and len(batch.jobs) <= 16)
    full = [batch for batch in batches if len(batch.jobs) == 16]
    assert len(full) == sum(shapes.count((64, frames)) // 16 for frames in (1, 5)), (
        "81 frames of 64 x 64: three at once"
    )


def test_captions_are_taken_sixteen_at_a_time() -> None:
    jobs = [a_job(an_item(str(n)), TEXT) for n in range(33)]

    assert [len(batch.jobs) for batch in batches_of(jobs)] == [16, 16, 1]


def test_stills_and_single_frames_of_clips_are_not_mixed() -> None:
    jobs = [a_job(an_item("a"), LATENTS), a_job(an_item("b", kind="video"), LATENTS)]

    assert len(batches_of(jobs)) == 2
