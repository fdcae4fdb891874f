"""Samples to entries, latents to pixels."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from musubi.batch import Entry, Sample
from tests.contract.conftest import CPU, SIZE, Running


def stage_names(running: Running) -> list[str]:
    return [stage.name for stage in running.spec.stages]


def equal(one: Entry, other: Entry) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        torch.equal(t, other.tensors[name]) for name, t in one.tensors.items()
    )


def test_components_are_frozen_and_evaluating(running: Running) -> None:
    for model in running.models.values():
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())


def test_entries_come_in_the_samples_order(running: Running) -> None:
    samples = running.samples()

    for stage in stage_names(running):
        assert [entry.name for entry in running.entries(stage, samples)] == [s.name for s in samples]


def test_entries_are_plain_tensors_on_the_host(running: Running) -> None:
    for stage in stage_names(running):
        for entry in running.entries(stage, running.samples()):
            assert entry.tensors
            assert all(t.device == CPU and not t.requires_grad for t in entry.tensors.values())
            assert all(t.isfinite().all() for t in entry.tensors.values())


def test_samples_of_one_shape_share_a_batch_key_whatever_their_captions(running: Running) -> None:
    for stage in stage_names(running):
        assert len({entry.key for entry in running.entries(stage, running.samples())}) == 1


def test_samples_of_another_size_have_another_batch_key(running: Running) -> None:
    both = [running.samples(size=size) for size in (SIZE, SIZE[::-1])]
    keys = [{e.key for stage in stage_names(running) for e in running.entries(stage, s)} for s in both]

    assert keys[0] != keys[1]


def test_stages_name_their_tensors_differently(running: Running) -> None:
    names = [name for stage in stage_names(running) for name in running.entries(stage, running.samples())[0].tensors]

    assert len(set(names)) == len(names)


def test_encoding_twice_gives_the_same_bits(running: Running) -> None:
    for stage in stage_names(running):
        again = [running.entries(stage, running.samples()) for _ in range(2)]

        assert all(map(equal, *again))


def test_samples_encoded_together_equal_samples_encoded_one_by_one(running: Running) -> None:
    samples = running.samples(["a red fox", "a blue fox walks through the snow", "", "a red fox", "snow"])

    for stage in stage_names(running):
        together = running.entries(stage, samples)
        alone = [running.entries(stage, [sample])[0] for sample in samples]

        assert [entry.name for entry in together] == [sample.name for sample in samples]
        for one, other in zip(together, alone, strict=True):
            assert_close(dict(one.tensors), dict(other.tensors), rtol=0, atol=1e-5)


def test_captions_are_counted_as_they_are_encoded(running: Running) -> None:
    lengths = running.codec.caption_lengths(["", "a red fox", "fox " * 1000])

    assert lengths is None or len(lengths.tokens) == 3
    if lengths is not None:
        assert lengths.tokens[0] < lengths.tokens[1] < lengths.limit < lengths.tokens[2]


def other_words(sample: Sample) -> Sample:
    return attrs.evolve(sample, caption="something else entirely")


def other_pixels(sample: Sample) -> Sample:
    assert sample.pixels is not None
    return attrs.evolve(sample, pixels=255 - sample.pixels)


@pytest.mark.parametrize(("part", "change"), [("caption", other_words), ("pixels", other_pixels)])
def test_a_stage_depends_on_what_it_reads_and_on_nothing_else(
    running: Running, part: str, change: Callable[[Sample], Sample]
) -> None:
    (sample,) = running.samples(["a fox"])

    for stage in running.spec.stages:
        before, after = running.entries(stage.name, [sample]), running.entries(stage.name, [change(sample)])

        assert equal(before[0], after[0]) == (part not in stage.reads), stage.name


def test_clean_latents_have_the_shape_that_the_geometry_says(running: Running) -> None:
    clean = running.denoiser.clean(running.usual)

    assert clean.dtype == torch.float32
    assert clean.shape == (3, *running.spec.geometry.latent_shape(SIZE, running.frames))


def decoded(running: Running, latents: Tensor) -> Tensor:
    with torch.no_grad():
        return running.codec.decode(running.models, latents)


def test_decoding_gives_frames_between_black_and_white(running: Running) -> None:
    frames = decoded(running, running.denoiser.clean(running.usual))

    assert frames.shape == (3, running.frames, SIZE[1], SIZE[0], 3)
    assert frames.is_floating_point()
    assert 0 <= frames.min() <= frames.max() <= 1


def test_decoding_treats_items_one_by_one(running: Running) -> None:
    latents = running.denoiser.clean(running.usual)

    together = decoded(running, latents)
    alone = torch.cat([decoded(running, latents[i : i + 1]) for i in range(3)])

    assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_identities_are_stable_differ_and_tell_no_paths(running: Running) -> None:
    components = list(running.models)
    again = running.spec.codec()

    identities = [running.codec.identity(c) for c in components]

    assert identities == [again.identity(c) for c in components]
    assert len(set(identities)) == len(components)
    assert not any("/" in identity or "\\" in identity for identity in identities)
