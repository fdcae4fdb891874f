from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musubi.noise import flow
from musubi.noise.loss import MSE, Huber, Loss, SmoothL1


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_path_begins_at_the_data_and_ends_at_the_noise() -> None:
    clean, noise = numbers(2, 4, 3, 3), numbers(2, 4, 3, 3, seed=1)

    mixed = flow.mix(clean, noise, torch.tensor([0.0, 1.0]))

    assert torch.equal(mixed[0], clean[0])
    assert torch.equal(mixed[1], noise[1])


@given(sigma=st.floats(0.001, 0.999))
def test_the_true_velocity_leads_back_to_the_data(sigma: float) -> None:
    clean, noise, level = numbers(1, 4, 2), numbers(1, 4, 2, seed=1), torch.tensor([sigma])

    found = flow.clean_estimate(flow.mix(clean, noise, level), noise - clean, level)

    torch.testing.assert_close(found, clean, atol=1e-6, rtol=0)


def test_mixing_half_precision_data_happens_in_float32() -> None:
    mixed = flow.mix(numbers(1, 4).bfloat16(), numbers(1, 4, seed=1).bfloat16(), torch.tensor([0.3]))

    assert mixed.dtype == torch.float32


def test_the_error_of_half_precision_predictions_is_a_float32_scalar() -> None:
    error = flow.error(numbers(2, 4).bfloat16(), numbers(2, 4, seed=1).bfloat16())

    assert error.dtype == torch.float32
    assert error.shape == ()


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 2, 2), (3, 4, 1, 2, 2)])
def test_each_item_counts_by_its_own_weight_whatever_the_rank(shape: tuple[int, ...]) -> None:
    predicted, target, weight = numbers(*shape), numbers(*shape, seed=1), torch.tensor([1.0, 2.0, 5.0])

    weighted = flow.error(predicted, target, weight)

    single = torch.stack([w * flow.error(p[None], t[None]) for p, t, w in zip(predicted, target, weight, strict=True)])
    torch.testing.assert_close(weighted, single.mean())


def test_unit_weights_change_nothing() -> None:
    predicted, target = numbers(2, 4, 3), numbers(2, 4, 3, seed=1)

    torch.testing.assert_close(flow.error(predicted, target, torch.ones(2)), flow.error(predicted, target))


@pytest.mark.parametrize("loss", [MSE(), MSE(mean_over="mask"), Huber(delta=0.2), SmoothL1()], ids=repr)
@pytest.mark.parametrize("shape", [(3, 4, 2, 5, 5), (3, 4, 5, 5)])
def test_weights_and_masks_of_items_do_not_mix_under_any_loss(loss: Loss, shape: tuple[int, ...]) -> None:
    predicted, target, weight = numbers(*shape), numbers(*shape, seed=1), torch.tensor([1.0, 0.0, 5.0])
    mask = numbers(3, shape[2] if len(shape) == 5 else 1, 5, 5, seed=2).sigmoid()

    together = flow.error(predicted, target, weight, mask=mask, loss=loss)

    items = zip(predicted[:, None], target[:, None], weight, mask[:, None], strict=True)
    alone = torch.stack([w * flow.error(p, t, mask=m, loss=loss) for p, t, w, m in items])
    torch.testing.assert_close(together, alone.mean())


def test_the_default_error_is_the_mean_square() -> None:
    predicted, target = numbers(2, 4, 3), numbers(2, 4, 3, seed=1)

    torch.testing.assert_close(flow.error(predicted, target), torch.nn.functional.mse_loss(predicted, target))


@given(sigma=st.floats(0, 1), shift=st.floats(0.1, 20))
def test_shifting_back_undoes_a_shift_and_keeps_the_ends(sigma: float, shift: float) -> None:
    level = torch.tensor([0.0, sigma, 1.0], dtype=torch.float64)

    moved = flow.shifted(level, shift)

    torch.testing.assert_close(flow.shifted(moved, 1 / shift), level)
    assert moved[[0, 2]].tolist() == pytest.approx([0.0, 1.0])
