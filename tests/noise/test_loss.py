from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from musubi.core.errors import ConfigError
from musubi.noise.loss import MSE, Huber, Loss, SmoothL1

ALL = (MSE(), Huber(delta=0.3), SmoothL1(beta=0.7))
each_loss = pytest.mark.parametrize("loss", ALL, ids=repr)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@each_loss
def test_errors_are_elementwise_in_float32_and_0_where_the_prediction_is_right(loss: Loss) -> None:
    target = numbers(2, 4, 3).bfloat16()
    predicted = target.clone()
    predicted[0, 0, 0] += 2

    errors = loss.errors(predicted, target)

    assert (errors.dtype, errors.shape) == (torch.float32, target.shape)
    assert errors.count_nonzero() == 1
    assert errors[0, 0, 0] > 0


@given(error=st.floats(-20, 20), width=st.floats(0.01, 5))
def test_huber_and_smooth_l1_are_their_papers_formulas(error: float, width: float) -> None:
    predicted, target = torch.tensor([error], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)

    huber = Huber(delta=width).errors(predicted, target).item()
    smooth = SmoothL1(beta=width).errors(predicted, target).item()

    formula = error**2 / 2 if abs(error) < width else width * (abs(error) - width / 2)
    assert huber == pytest.approx(formula, rel=1e-4, abs=1e-6)
    assert smooth == pytest.approx(formula / width, rel=1e-4, abs=1e-6)


def test_an_outlier_pulls_a_huber_loss_no_harder_than_delta() -> None:
    predicted = torch.tensor([100.0, 0.01], requires_grad=True)

    Huber(delta=0.5).errors(predicted, torch.zeros(2)).sum().backward()

    assert predicted.grad is not None
    torch.testing.assert_close(predicted.grad, torch.tensor([0.5, 0.01]))


@each_loss
@pytest.mark.parametrize("mean_over", ["all", "mask"])
@pytest.mark.parametrize("shape", [(3, 4, 2, 5, 5), (3, 4, 5, 5)])
def test_items_are_measured_as_if_alone(loss: Loss, mean_over: str, shape: tuple[int, ...]) -> None:
    loss = loss.replace(mean_over=mean_over)
    predicted, target = numbers(*shape), numbers(*shape, seed=1)
    mask = numbers(3, shape[2] if len(shape) == 5 else 1, 5, 5, seed=2).sigmoid()

    together = loss.per_item(predicted, target, mask=mask)

    alone = [loss.per_item(predicted[i : i + 1], target[i : i + 1], mask=mask[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))


@each_loss
def test_over_all_cells_half_a_mask_is_half_the_error(loss: Loss) -> None:
    predicted, target, half = numbers(1, 4, 1, 6, 6), numbers(1, 4, 1, 6, 6, seed=1), torch.zeros(1, 1, 6, 6)
    half[..., :3] = 1

    masked = loss.per_item(predicted, target, mask=half)

    shown = loss.per_item(predicted[..., :3], target[..., :3])
    torch.testing.assert_close(masked, shown / 2)


@each_loss
def test_over_the_mask_only_what_is_shown_counts_and_wholly(loss: Loss) -> None:
    predicted, target, half = numbers(1, 4, 1, 6, 6), numbers(1, 4, 1, 6, 6, seed=1), torch.zeros(1, 1, 6, 6)
    half[..., :3] = 0.5

    masked = loss.replace(mean_over="mask").per_item(predicted, target, mask=half)

    torch.testing.assert_close(masked, loss.per_item(predicted[..., :3], target[..., :3]))


def test_an_item_of_which_nothing_is_shown_gives_no_error_and_no_gradient() -> None:
    predicted = numbers(2, 4, 1, 3, 3).requires_grad_()
    mask = torch.stack([torch.zeros(1, 3, 3), torch.ones(1, 3, 3)])

    items = MSE(mean_over="mask").per_item(predicted, numbers(2, 4, 1, 3, 3, seed=1), mask=mask)
    items.sum().backward()

    assert items[0] == 0
    assert items[1] > 0
    assert predicted.grad is not None
    assert predicted.grad[0].count_nonzero() == 0
    assert predicted.grad.isfinite().all()


@each_loss
def test_without_a_mask_both_means_are_the_same(loss: Loss) -> None:
    predicted, target = numbers(2, 4, 3), numbers(2, 4, 3, seed=1)

    assert torch.equal(loss.per_item(predicted, target), loss.replace(mean_over="mask").per_item(predicted, target))


@each_loss
def test_a_loss_survives_toml(loss: Loss) -> None:
    loss = loss.replace(mean_over="mask")

    assert Loss.from_toml(loss.to_toml()) == loss


def test_unknown_means_and_empty_widths_are_refused() -> None:
    with pytest.raises(ConfigError, match="mean_over: must be one of all, mask; did you mean 'mask'"):
        Loss.from_dict({"kind": "mse", "mean_over": "masked"})
    with pytest.raises(ConfigError, match="delta: must be a number above 0, got 0"):
        Huber(delta=0)
