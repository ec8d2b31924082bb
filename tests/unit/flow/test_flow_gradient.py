from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from infcop.core.mask import Masks
from infcop.errors import FlowError
from infcop.flow.gradient import (
    FullGradient,
    PerBatchGradient,
    batch_gradients,
    gradient_mean,
    gradient_norm,
)


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def linear_regression(seed=0):
    """Weights, inputs and targets of ``mean over n and outputs of (x W^T - y)^2 / 2``."""
    return normal(2, 3, seed=seed).requires_grad_(), normal(11, 3, seed=seed + 1), normal(11, 2)


def squared_error(weight, inputs, targets):
    return ((inputs @ weight.T - targets) ** 2).sum(dim=1).mean() / 2


def closed_form(weight, inputs, targets):
    residual = inputs @ weight.detach().T - targets
    return residual.T @ inputs / len(inputs)


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_full_gradient_of_linear_regression_is_the_closed_form_for_any_split(sizes, seed):
    weight, inputs, targets = linear_regression(seed)
    inputs, targets = normal(sum(sizes), 3, seed=seed), normal(sum(sizes), 2, seed=seed + 7)
    full = FullGradient(None)
    for x, y in zip(inputs.split(sizes), targets.split(sizes), strict=True):
        full.update(batch_gradients(squared_error(weight, x, y), {"w": weight}), len(x))
    expected = closed_form(weight, inputs, targets)
    assert full.norm() == pytest.approx((float(expected.norm()),), abs=1e-10)
    assert full.mean() == pytest.approx((float(expected.abs().mean()),), abs=1e-10)


def test_per_batch_averages_statistics_and_depends_on_the_split():
    weight, inputs, targets = linear_regression()
    readings = []
    for sizes in ([5, 6], [1] * 11):
        per_batch, expected = PerBatchGradient(None), []
        for x, y in zip(inputs.split(sizes), targets.split(sizes), strict=True):
            per_batch.update(batch_gradients(squared_error(weight, x, y), {"w": weight}), len(x))
            expected.append(closed_form(weight, x, y))
        norms = np.mean([float(g.norm()) for g in expected])
        means = np.mean([float(g.abs().mean()) for g in expected])
        assert per_batch.norm() == pytest.approx((norms,), abs=1e-12)
        assert per_batch.mean() == pytest.approx((means,), abs=1e-12)
        readings.append(per_batch.norm()[0])
    assert readings[1] > 1.2 * readings[0]


@pytest.mark.parametrize("kind", [FullGradient, PerBatchGradient])
@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_masked_entries_count_zero_whatever_they_are_and_stay_in_the_denominator(kind, bad):
    mask = torch.tensor([[True, False], [True, True]])
    statistics = kind(Masks({"w": mask}))
    statistics.update({"w": torch.tensor([[3.0, bad], [0.0, -4.0]])}, 5)
    assert statistics.norm() == (5.0,)
    assert statistics.mean() == (7 / 4,)


@pytest.mark.parametrize("kind", [FullGradient, PerBatchGradient])
def test_fully_pruned_tensor_gives_zero_and_masks_are_never_written(kind):
    masks = Masks({"w": torch.zeros(2, 2, dtype=torch.bool)})
    gradient = torch.ones(2, 2)
    statistics = kind(masks)
    statistics.update({"w": gradient}, 3)
    statistics.update({"w": gradient}, 3)
    assert statistics.norm() == statistics.mean() == (0.0,)
    assert torch.equal(gradient, torch.ones(2, 2))


@pytest.mark.parametrize("kind", [FullGradient, PerBatchGradient])
@pytest.mark.parametrize("scale", [-3.0, 0.0, 0.5])
def test_scaling_the_loss_scales_by_the_absolute_value(kind, scale):
    weight, inputs, targets = linear_regression()
    plain, scaled = kind(None), kind(None)
    for x, y in zip(inputs.split(4), targets.split(4), strict=True):
        loss = squared_error(weight, x, y)
        plain.update(batch_gradients(loss, {"w": weight}), len(x))
        loss = scale * squared_error(weight, x, y)
        scaled.update(batch_gradients(loss, {"w": weight}), len(x))
    assert scaled.norm()[0] == pytest.approx(abs(scale) * plain.norm()[0], abs=1e-12)
    assert scaled.mean()[0] == pytest.approx(abs(scale) * plain.mean()[0], abs=1e-12)


def test_full_sums_in_float64():
    full = FullGradient(None)
    for gradient in (1.0, 2.0**-30, -1.0):
        full.update({"w": torch.tensor([gradient])}, 1)
    assert full.norm() == (2.0**-30 / 3,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_statistics_of_low_precision_gradients_are_float64(dtype):
    gradient = torch.full((300, 300), 256.0, dtype=dtype)
    assert gradient_norm(gradient) == torch.tensor(256.0 * 300, dtype=torch.float64)
    assert gradient_mean(gradient) == torch.tensor(256.0, dtype=torch.float64)


@pytest.mark.parametrize("kind", [FullGradient, PerBatchGradient])
def test_non_finite_gradient_stays_visible(kind):
    statistics = kind(None)
    statistics.update({"w": torch.tensor([float("nan")]), "v": torch.tensor([1.0])}, 1)
    statistics.update({"w": torch.tensor([1.0]), "v": torch.tensor([1.0])}, 1)
    assert np.isnan(statistics.norm()).tolist() == [True, False]


def test_unused_parameter_has_gradient_zero_and_grad_is_untouched():
    used, unused = normal(2).requires_grad_(), normal(3, 2).requires_grad_()
    used.grad = torch.ones(2).double()
    gradients = batch_gradients((used**2).sum(), {"used": used, "unused": unused})
    assert torch.equal(gradients["used"], 2 * used.detach())
    assert torch.equal(gradients["unused"], torch.zeros(3, 2).double())
    assert torch.equal(used.grad, torch.ones(2).double())
    assert unused.grad is None


@pytest.mark.parametrize("loss", [torch.tensor(1.0), torch.ones(2, requires_grad=True)])
def test_loss_without_gradient_or_not_scalar_is_refused(loss):
    with pytest.raises(FlowError, match="scalar loss with a gradient"):
        batch_gradients(loss, {"w": torch.ones(1, requires_grad=True)})


@pytest.mark.parametrize("kind", [FullGradient, PerBatchGradient])
@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [("fc.weigth", (2,), "got none; did you mean 'fc.weigth'"), ("fc.weight", (3,), "shape")],
)
def test_missing_or_misshapen_mask_is_refused(kind, name, shape, message):
    statistics = kind(Masks({name: torch.ones(shape, dtype=torch.bool)}))
    with pytest.raises(FlowError, match=message):
        _ = statistics.update({"fc.weight": torch.ones(2)}, 1), statistics.norm()


@settings(deadline=None, max_examples=20)
@given(shares=st.lists(st.lists(st.integers(1, 4), max_size=3), min_size=1, max_size=4))
@pytest.mark.parametrize("kind", [FullGradient, PerBatchGradient])
def test_sums_and_counts_of_shares_add_up_to_the_whole(kind, shares):
    """As several processes do it; some have no batch."""
    shares = [*shares, [2]]
    weight, _, _ = linear_regression()
    whole, parts, seed = kind(None), [], 0
    for sizes in shares:
        part = kind(None)
        for size in sizes:
            seed += 1
            x, y = normal(size, 3, seed=seed), normal(size, 2, seed=seed + 50)
            gradients = batch_gradients(squared_error(weight, x, y), {"w": weight})
            whole.update(gradients, size)
            part.update(gradients, size)
        parts.append(part)
    sums = sum(part.sums({"w": weight})["w"] for part in parts)
    joined = kind(None).with_sums({"w": sums}, sum(part.count for part in parts))
    assert joined.norm() == pytest.approx(whole.norm(), abs=1e-12)
    assert joined.mean() == pytest.approx(whole.mean(), abs=1e-12)


@pytest.mark.parametrize("kind", [FullGradient, PerBatchGradient])
def test_joined_statistics_keep_their_masks(kind):
    mask = torch.tensor([[True, False], [True, True]])
    statistics = kind(Masks({"w": mask}))
    gradients = {"w": torch.tensor([[3.0, 9.0], [0.0, -4.0]])}
    statistics.update(gradients, 5)
    joined = statistics.with_sums(statistics.sums({"w": torch.zeros(2, 2)}), statistics.count)
    assert joined.norm() == (5.0,)
    joined.update(gradients, 5)
    assert joined.norm() == (5.0,)


@pytest.mark.parametrize("kind", [FullGradient, PerBatchGradient])
def test_gradients_are_taken_in_by_value(kind):
    gradient = torch.tensor([3.0, 4.0], dtype=torch.float64)
    statistics = kind(None)
    statistics.update({"w": gradient}, 1)
    gradient.zero_()
    assert statistics.norm() == (5.0,)


def test_a_reentrant_checkpoint_anywhere_behind_the_loss_is_refused():
    """What is inside would seem to have no gradient at all."""
    weight, inside = normal(3).requires_grad_(), normal(3).requires_grad_()
    hidden = checkpoint(lambda x: (x * inside).tanh(), weight, use_reentrant=True)
    with pytest.raises(FlowError, match="use_reentrant=False, got a reentrant one"):
        batch_gradients((hidden.exp() + weight).sum(), {"inside": inside})
    assert inside.grad is None
    hidden = checkpoint(lambda x: (x * inside).tanh(), weight, use_reentrant=False)
    found = batch_gradients((hidden.exp() + weight).sum(), {"inside": inside})["inside"]
    hidden = (weight * inside).tanh()
    expected = batch_gradients((hidden.exp() + weight).sum(), {"inside": inside})["inside"]
    assert torch.equal(found, expected)
