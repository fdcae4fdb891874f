from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import pytest
import torch
from torch import Tensor, nn

from musubi import Cache, CacheError, CancelToken, Dataset
from musubi.batch import Batch
from musubi.core.events import Validated
from musubi.noise import flow
from musubi.testing.toy import Toy, ToyConditions, ToyDenoiser
from musubi.training.validation import Best, Validation
from musubi.training.validator import Validator
from tests.training.conftest import write_pictures

CPU = torch.device("cpu")


@attrs.frozen(eq=False)
class Call:
    items: tuple[str, ...]
    sigma: float
    noise: Tensor
    losses: Tensor


@attrs.frozen(eq=False)
class PlainObjective:
    """The plain objective: what the Protocol asks for, and a record of it."""

    denoiser: ToyDenoiser
    calls: list[Call] = attrs.field(factory=list)

    def loss_at(self, model: nn.Module, batch: Batch, sigma: Tensor, noise: Tensor) -> Tensor:
        clean = self.denoiser.clean(batch)
        conditions: ToyConditions = self.denoiser.conditions(batch)
        predicted = self.denoiser.velocity(model, flow.mix(clean, noise, sigma), sigma, conditions)
        losses = (predicted - (noise - clean)).square().flatten(1).mean(1)
        self.calls.append(Call(batch.items, float(sigma[0]), noise, losses))
        return losses


@attrs.frozen
class Alone:
    rank: int = 0
    count: int = 1
    device: torch.device = CPU

    def mean(self, values: Sequence[float]) -> list[float]:
        return list(values)


class Meeting:
    """Several processes as threads that meet for every mean."""

    def __init__(self, count: int) -> None:
        self.count, self._barrier = count, threading.Barrier(count)
        self._given: list[list[float]] = [[] for _ in range(count)]

    def mean(self, rank: int, values: Sequence[float]) -> list[float]:
        self._given[rank] = list(values)
        self._barrier.wait(timeout=60)
        means = [sum(column) / self.count for column in zip(*self._given, strict=True)]
        self._barrier.wait(timeout=60)
        return means

    def together(self, work: Callable[[Peer], Validated | None]) -> list[Validated | None]:
        results: list[Validated | None] = [None] * self.count

        def run(rank: int) -> None:
            results[rank] = work(Peer(self, rank))

        threads = [threading.Thread(target=run, args=(rank,)) for rank in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


@attrs.frozen
class Peer:
    meeting: Meeting
    rank: int
    device: torch.device = CPU

    @property
    def count(self) -> int:
        return self.meeting.count

    def mean(self, values: Sequence[float]) -> list[float]:
        return self.meeting.mean(self.rank, values)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Cache[Toy]:
    folder = tmp_path_factory.mktemp("validator")
    data = Dataset.from_folder(write_pictures(folder / "pictures", 10), resolution=48).with_geometry(Toy().geometry)
    held = data.with_batch_size(2).with_validation(share=0.5)
    return Cache(folder / "cache", model=Toy()).build(held, progress=False)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    toy = Toy()
    return toy.denoiser().load(toy.experts[0], device=CPU, dtype=torch.float32)


@pytest.fixture
def objective() -> PlainObjective:
    return PlainObjective(ToyDenoiser(Toy()))


def measure(
    cache: Cache[Toy], objective: PlainObjective, model: nn.Module, spec: Validation | None = None, **how: int
) -> Validated:
    measured = Validator(spec or Validation(), cache, Alone(), **how).measure(objective, model, step=3)
    assert measured is not None
    return measured


def test_the_loss_is_the_mean_over_all_items_and_levels_and_over_its_bands(
    held: Cache[Toy], objective: PlainObjective, model: nn.Module
) -> None:
    spec = Validation(sigmas=(0.2, 0.5, 0.8))

    measured = measure(held, objective, model, spec)

    items = [name for call in objective.calls if call.sigma == 0.5 for name in call.items]
    assert sorted(items) == sorted(c.item.name for c in held.items() if c.item.split == "validation")
    assert measured.step == 3
    assert measured.loss == pytest.approx(sum(band.loss for band in measured.bands) / 3)
    assert [(band.low, band.high) for band in measured.bands] == list(spec.bands)
    for band, level in zip(measured.bands, spec.sigmas, strict=True):
        losses = [float(loss) for call in objective.calls if call.sigma == pytest.approx(level) for loss in call.losses]
        assert band.loss == pytest.approx(sum(losses) / 5)


def test_measuring_again_gives_the_same_numbers_bit_for_bit(
    held: Cache[Toy], objective: PlainObjective, model: nn.Module
) -> None:
    torch.manual_seed(1)
    first = measure(held, objective, model)
    torch.manual_seed(2)
    second = measure(held, objective, model)

    assert first == second


def test_another_seed_is_other_noise(held: Cache[Toy], objective: PlainObjective, model: nn.Module) -> None:
    assert measure(held, objective, model, Validation(seed=1)) != measure(held, objective, model)


def test_every_item_and_level_has_noise_of_its_own(
    held: Cache[Toy], objective: PlainObjective, model: nn.Module
) -> None:
    measure(held, objective, model)

    firsts = [float(noise.flatten()[0]) for call in objective.calls for noise in call.noise]
    assert len(set(firsts)) == len(firsts) == 5 * 4


def test_the_batch_size_does_not_matter(held: Cache[Toy], objective: PlainObjective, model: nn.Module) -> None:
    together, alone = measure(held, objective, model), measure(held, objective, model, batch_size=1)

    assert alone.loss == pytest.approx(together.loss, rel=1e-6)
    assert [band.loss for band in alone.bands] == pytest.approx([band.loss for band in together.bands], rel=1e-6)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_processes_share_the_work_and_agree_on_the_result(held: Cache[Toy], model: nn.Module, count: int) -> None:
    objectives = [PlainObjective(ToyDenoiser(Toy())) for _ in range(count)]
    expected = measure(held, PlainObjective(ToyDenoiser(Toy())), model)

    def work(peer: Peer) -> Validated | None:
        return Validator(Validation(), held, peer).measure(objectives[peer.rank], model, step=3)

    results = Meeting(count).together(work)

    assert all(result == results[0] for result in results)
    assert results[0] is not None
    assert results[0].loss == pytest.approx(expected.loss, rel=1e-12)
    assert len({len(objective.calls) for objective in objectives}) == 1, "divided models need equally many passes"
    assert len(objectives[0].calls) == 4 * math.ceil(3 / count)


def test_one_process_that_is_cancelled_stops_all(held: Cache[Toy], model: nn.Module) -> None:
    def work(peer: Peer) -> Validated | None:
        cancel = CancelToken()

        def after(done: int, total: int) -> None:
            if peer.rank == 1:
                cancel.cancel()

        objective = PlainObjective(ToyDenoiser(Toy()))
        validator = Validator(Validation(), held, peer)
        return validator.measure(objective, model, step=3, cancel=cancel, on_batch=after)

    assert Meeting(2).together(work) == [None, None]


def test_nothing_is_left_behind(held: Cache[Toy], objective: PlainObjective, model: nn.Module) -> None:
    dropout = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5).eval()).train()
    dropout[1].eval()
    handle = model.register_forward_hook(lambda *_: modes.append((torch.is_grad_enabled(), dropout[0].training)))
    modes: list[tuple[bool, bool]] = []
    before = torch.get_rng_state()

    try:
        Validator(Validation(), held, Alone()).measure(objective, model, dropout, step=1)
    finally:
        handle.remove()

    assert set(modes) == {(False, False)}
    assert (dropout.training, dropout[0].training, dropout[1].training) == (True, True, False)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()


def test_global_random_numbers_are_the_callers_even_if_the_model_draws_some(
    held: Cache[Toy], objective: PlainObjective, model: nn.Module
) -> None:
    handle = model.register_forward_hook(lambda *_: torch.rand(1) and None)
    before = torch.get_rng_state()

    try:
        measure(held, objective, model)
    finally:
        handle.remove()

    assert torch.equal(torch.get_rng_state(), before)


def test_only_a_lower_loss_is_the_best(held: Cache[Toy], objective: PlainObjective, model: nn.Module) -> None:
    validator = Validator(Validation(), held, Alone())
    first = validator.measure(objective, model, step=1)
    assert first is not None

    again = validator.measure(objective, model, step=2, best=Best.of([first]))
    better = validator.measure(objective, model, step=2, best=Best(loss=first.loss * 1.01, step=1))

    assert first.best
    assert again is not None
    assert not again.best
    assert better is not None
    assert better.best


def test_a_model_that_diverged_is_measured_and_is_not_the_best(held: Cache[Toy], model: nn.Module) -> None:
    class Diverged(PlainObjective):
        def loss_at(self, model: nn.Module, batch: Batch, sigma: Tensor, noise: Tensor) -> Tensor:
            return torch.full((len(batch),), math.nan)

    measured = measure(held, Diverged(ToyDenoiser(Toy())), model)

    assert math.isnan(measured.loss)
    assert not measured.best


def test_progress_counts_batches(held: Cache[Toy], objective: PlainObjective, model: nn.Module) -> None:
    heard: list[tuple[int, int]] = []

    Validator(Validation(), held, Alone()).measure(
        objective, model, step=1, on_batch=lambda done, total: heard.append((done, total))
    )

    assert heard == [(1, 3), (2, 3), (3, 3)]


def test_without_held_out_items_the_run_is_refused_before_it_starts(cache: Cache[Toy], tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="holds no item for validation"):
        Validator(Validation(), cache, Alone())
