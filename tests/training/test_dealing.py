from __future__ import annotations

import torch

from musubi import Cache, Uniform
from musubi.cache.loader import Position
from musubi.testing.toy import Toy
from musubi.training.dealing import Dealer
from musubi.training.rng import RunRandom


def dealer(cache: Cache[Toy], *, strata: int | None = 8, seed: int = 0) -> Dealer:
    return Dealer(Uniform(strata=strata), cache.loader(seed=seed), RunRandom(seed, device=torch.device("cpu")))


def epoch(dealer: Dealer, number: int) -> list[float]:
    """Return the shares of an epoch of four batches of two."""
    dealt = [dealer.deal(Position(number, index), 2) for index in range(4)]
    return [float(share) for shares in dealt if shares is not None for share in shares]


def test_without_strata_nothing_is_dealt(cache: Cache[Toy]) -> None:
    assert dealer(cache, strata=None).deal(Position(), 2) is None


def test_an_epoch_covers_every_stratum_once(cache: Cache[Toy]) -> None:
    for number in range(3):
        assert sorted(int(8 * share) for share in epoch(dealer(cache), number)) == list(range(8))


def test_epochs_and_seeds_are_dealt_differently(cache: Cache[Toy]) -> None:
    one = dealer(cache)
    dealt = [epoch(one, 0), epoch(one, 1), epoch(dealer(cache, seed=1), 0)]

    assert len({tuple(shares) for shares in dealt}) == 3


def test_a_batch_gets_the_same_in_whatever_order_batches_are_dealt(cache: Cache[Toy]) -> None:
    one, other = dealer(cache), dealer(cache)
    expected = epoch(other, 0)

    backwards = [one.deal(Position(0, index), 2) for index in (3, 2, 1, 0)]

    assert [share for shares in reversed(backwards) if shares is not None for share in shares.tolist()] == expected


def test_after_going_back_an_epoch_is_dealt_anew(cache: Cache[Toy]) -> None:
    random = RunRandom(0, device=torch.device("cpu"))
    dealt = Dealer(Uniform(strata=8), cache.loader(), random)
    before = epoch(dealt, 0)

    random.attempt += 1

    assert epoch(dealt, 0) != before
