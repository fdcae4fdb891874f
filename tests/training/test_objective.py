from __future__ import annotations

import attrs
import torch
from torch import Tensor, nn

from musubi import Cache, NoWeighting, SigmaSqrt, Uniform
from musubi.architecture import Expert
from musubi.batch import LOSS_MASK, Batch
from musubi.noise.weighting import Weighting
from musubi.testing.toy import Toy, ToyConditions, ToyDenoiser
from musubi.training.objective import Measured, Objective

CPU = torch.device("cpu")


@attrs.frozen
class Oracle(ToyDenoiser):
    """A denoiser that is wrong by 1 everywhere, because it knows the clean latents."""

    def velocity(self, model: nn.Module, x: Tensor, sigma: Tensor, cond: ToyConditions) -> Tensor:
        level = sigma.view(-1, 1, 1, 1, 1)
        clean = model.get_buffer("clean")
        return (x - clean) / level + 1


def measure(
    cache: Cache[Toy], denoiser: ToyDenoiser, weighting: Weighting, seed: int = 0, batch: Batch | None = None
) -> Measured:
    batch = batch or next(cache.loader(seed=1).batches())[1]
    model = denoiser.load(Expert(), device=CPU, dtype=torch.float32)
    model.register_buffer("clean", batch["latents"].float())
    objective = Objective(
        denoiser=denoiser, geometry=Toy().geometry, timesteps=Uniform(), weighting=weighting, dtype=torch.float32
    )
    return objective.measure(model, batch, generator=torch.Generator().manual_seed(seed))


def test_the_loss_is_the_squared_error_of_the_velocity(cache: Cache[Toy]) -> None:
    measured = measure(cache, Oracle(Toy()), NoWeighting())

    assert torch.allclose(measured.loss, torch.tensor(1.0), atol=1e-3)


def test_the_weighting_multiplies_each_items_own_error(cache: Cache[Toy]) -> None:
    measured = measure(cache, Oracle(Toy()), SigmaSqrt())

    assert torch.allclose(measured.loss, (measured.sigma**-2).mean(), rtol=1e-3)


def test_equal_generators_measure_equally_and_levels_are_float32_within_0_and_1(cache: Cache[Toy]) -> None:
    one, same, other = (measure(cache, ToyDenoiser(Toy()), NoWeighting(), seed) for seed in (3, 3, 4))

    assert torch.equal(one.loss, same.loss)
    assert not torch.equal(one.loss, other.loss)
    assert one.sigma.dtype == torch.float32
    assert ((one.sigma > 0) & (one.sigma < 1)).all()


def test_what_a_mask_leaves_out_does_not_count(cache: Cache[Toy]) -> None:
    batch = next(cache.loader(seed=1).batches())[1]
    half = torch.zeros(len(batch), *batch["latents"].shape[2:])
    half[..., : half.shape[-1] // 2] = 1
    masked = attrs.evolve(batch, stacked={**batch.stacked, LOSS_MASK: half})

    measured = measure(cache, Oracle(Toy()), NoWeighting(), batch=masked)

    assert torch.allclose(measured.loss, torch.tensor(0.5), atol=1e-3)


def test_an_items_weight_multiplies_its_error(cache: Cache[Toy]) -> None:
    batch = next(cache.loader(seed=1).batches())[1]
    weighed = attrs.evolve(batch, weights=tuple(0.25 for _ in batch.items))

    measured = measure(cache, Oracle(Toy()), NoWeighting(), batch=weighed)

    assert torch.allclose(measured.loss, torch.tensor(0.25), atol=1e-3)
