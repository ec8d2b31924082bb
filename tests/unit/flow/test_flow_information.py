from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infcop.errors import FlowError
from infcop.flow.information import (
    absolute_mean,
    correlation,
    dead_units,
    effective_rank,
    signed_mean,
)
from infcop.flow.moments import CoMoments
from tests.reference.flow import slow_correlation, slow_effective_rank, slow_signed_mean

EDGE = ("a", "b")


def moments_of(a, b, sizes=None):
    moments = CoMoments([EDGE])
    sizes = sizes or [len(a)]
    for left, right in zip(a.split(sizes), b.split(sizes), strict=True):
        moments.update({"a": left, "b": right})
    return moments


def normal(examples, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(examples, width, generator=generator, dtype=torch.float64)


def related(examples=60, seed=0):
    """Two layers where the second depends on the first, as in a network."""
    a = normal(examples, 5, seed)
    return a, (a @ normal(5, 4, seed + 1)).relu() + 0.1 * normal(examples, 4, seed + 2)


@settings(deadline=None, max_examples=25)
@given(
    examples=st.integers(2, 40),
    batch=st.integers(1, 41),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([1e-6, 1.0, 1e5]),
)
def test_equals_corrcoef_its_mean_and_the_identity(examples, batch, seed, scale):
    a, b = (values * scale for values in related(examples, seed))
    b[:, 2] = scale
    sizes = [batch] * (examples // batch) + ([examples % batch] if examples % batch else [])
    moments = moments_of(a, b, sizes)
    expected = slow_correlation(a, b)
    np.testing.assert_allclose(correlation(moments, EDGE), expected, atol=1e-10)
    assert signed_mean(moments)[0] == pytest.approx(expected.mean(), abs=1e-10)
    assert signed_mean(moments)[0] == pytest.approx(slow_signed_mean(a, b), abs=1e-10)
    assert absolute_mean(moments)[0] == pytest.approx(np.abs(expected).mean(), abs=1e-10)
    assert bool((correlation(moments, EDGE).abs() <= 1 + 1e-9).all())


@settings(deadline=None, max_examples=25)
@given(
    scales=st.lists(st.floats(1e-3, 1e3), min_size=5, max_size=5),
    shifts=st.lists(st.floats(-1e3, 1e3), min_size=5, max_size=5),
    seed=st.integers(0, 100),
)
def test_invariant_to_positive_affine_rescaling(scales, shifts, seed):
    a, b = related(seed=seed)
    moved = a * torch.tensor(scales, dtype=torch.float64) + torch.tensor(shifts).double()
    expected, got = moments_of(a, b), moments_of(moved, b)
    torch.testing.assert_close(
        correlation(got, EDGE), correlation(expected, EDGE), atol=1e-8, rtol=0
    )


def test_a_flipped_channel_flips_its_row_only():
    a, b = related()
    flipped = a.clone()
    flipped[:, 1] = -3 * flipped[:, 1] + 2
    expected, got = moments_of(a, b), moments_of(flipped, b)
    signs = torch.tensor([1, -1, 1, 1, 1]).double()[:, None]
    torch.testing.assert_close(correlation(got, EDGE), signs * correlation(expected, EDGE))
    assert absolute_mean(got) == pytest.approx(absolute_mean(expected), abs=1e-12)
    assert abs(signed_mean(got)[0] - signed_mean(expected)[0]) > 1e-3


@settings(deadline=None, max_examples=10)
@given(order=st.permutations(range(5)))
def test_permuting_channels_permutes_rows_and_keeps_the_means(order):
    a, b = related()
    expected, got = moments_of(a, b), moments_of(a[:, list(order)], b)
    torch.testing.assert_close(correlation(got, EDGE), correlation(expected, EDGE)[list(order)])
    assert signed_mean(got) == pytest.approx(signed_mean(expected), abs=1e-13)
    assert absolute_mean(got) == pytest.approx(absolute_mean(expected), abs=1e-13)


def test_known_answers():
    a = normal(4000, 1)
    assert signed_mean(moments_of(a, a.expand(-1, 3))) == pytest.approx((1.0,), abs=1e-12)
    assert signed_mean(moments_of(a, -a)) == pytest.approx((-1.0,), abs=1e-12)
    independent = moments_of(normal(4000, 6, 1), normal(4000, 7, 2))
    assert abs(signed_mean(independent)[0]) < 4 / 4000**0.5
    assert absolute_mean(independent)[0] == pytest.approx((2 / (np.pi * 4000)) ** 0.5, rel=0.3)


def test_huge_mean_with_small_deviation_is_correct():
    a, b = related(500)
    shifted = 1e4 + 1e-2 * a
    expected = correlation(moments_of(a, b), EDGE)
    moments = moments_of(shifted, b, [100] * 5)
    torch.testing.assert_close(correlation(moments, EDGE), expected, atol=1e-6, rtol=0)
    assert dead_units(moments) == {"a": 0, "b": 0}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("constant", [0.0, 3.1, -1e3])
def test_constant_channel_is_dead_counted_and_never_nan(dtype, constant):
    a, b = related()
    a[:, 3] = constant
    moments = moments_of(a.to(dtype), b.to(dtype), [17, 43])
    matrix = correlation(moments, EDGE)
    assert bool((matrix[3] == 0).all())
    assert bool(torch.isfinite(matrix).all())
    assert dead_units(moments) == {"a": 1, "b": 0}
    assert signed_mean(moments)[0] == pytest.approx(float(matrix.sum()) / 20, abs=1e-15)


def test_rounding_noise_of_float32_is_dead_and_the_same_in_float64_is_alive():
    a, b = related()
    noise = 1.0 + 2.0**-23 * (a[:, :1] > 0).double()
    assert dead_units(moments_of(noise.float(), b.float()))["a"] == 1
    moments = moments_of(noise, b)
    assert dead_units(moments)["a"] == 0
    np.testing.assert_allclose(correlation(moments, EDGE), slow_correlation(noise, b), atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(exponent=st.integers(-12, 6), mean=st.sampled_from([0.0, 1e-3, 1.0, -1e6]))
def test_near_constant_channels_are_dead_or_right_but_never_out_of_range(exponent, mean):
    a, b = related()
    moved = mean + 10.0**exponent * a
    moments = moments_of(moved, b, [20, 40])
    matrix = correlation(moments, EDGE)
    assert bool((matrix.abs() <= 1 + 1e-9).all())
    if 10.0**exponent > 1e-8 * abs(mean):
        torch.testing.assert_close(matrix, correlation(moments_of(a, b), EDGE), atol=1e-6, rtol=0)


def test_all_dead_layer_gives_zero():
    a, _ = related()
    moments = moments_of(a, torch.full((60, 4), 2.5).double())
    assert signed_mean(moments) == (0.0,)
    assert absolute_mean(moments) == (0.0,)
    assert dead_units(moments) == {"a": 0, "b": 4}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("others_dead", [False, True])
def test_non_finite_channel_makes_the_edge_nan_even_beside_a_dead_layer(bad, others_dead):
    a, b = related()
    if others_dead:
        b = torch.zeros_like(b)
    a[5, 2] = bad
    moments = moments_of(a, b)
    assert np.isnan(signed_mean(moments)[0])
    assert np.isnan(absolute_mean(moments)[0])
    assert dead_units(moments)["a"] == 0


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-6), (torch.float16, 5e-3), (torch.bfloat16, 3e-2)],
)
def test_low_precision_is_close_to_float64(dtype, tolerance):
    a, b = related(400)
    exact = correlation(moments_of(a, b), EDGE)
    low = correlation(moments_of(a.to(dtype), b.to(dtype), [300, 100]), EDGE)
    assert low.dtype == torch.float64
    torch.testing.assert_close(low, exact, atol=tolerance, rtol=0)


@pytest.mark.parametrize("examples", [0, 1])
def test_fewer_than_two_examples_are_refused(examples):
    a, b = related(3)
    moments = moments_of(a[:examples], b[:examples])
    for function in (signed_mean, absolute_mean, dead_units, effective_rank):
        with pytest.raises(FlowError, match=rf"at least two examples of a -> b, got {examples}"):
            function(moments)


def test_unknown_edge_is_refused_with_the_nearest():
    with pytest.raises(FlowError, match="did you mean 'a -> b'"):
        correlation(moments_of(*related()), ("a", "c"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_one_step_of_a_half_type_is_a_signal_not_rounding_noise(dtype):
    a, b = related()
    steps = (1 + torch.finfo(dtype).eps * (a > 0)).to(dtype)
    moments = moments_of(steps, b)
    assert dead_units(moments)["a"] == 0
    np.testing.assert_allclose(
        correlation(moments, EDGE), slow_correlation(steps.double(), b), atol=1e-10
    )


@settings(deadline=None, max_examples=20)
@given(widths=st.tuples(st.integers(1, 6), st.integers(1, 6)), seed=st.integers(0, 99))
def test_effective_rank_equals_the_slow_twin_and_keeps_its_bounds(widths, seed):
    a = normal(30, widths[0], seed)
    b = (a @ normal(widths[0], widths[1], seed + 1)).relu() + 0.1 * normal(30, widths[1], seed + 2)
    rank = effective_rank(moments_of(a, b, [13, 17]))[0]
    assert rank == pytest.approx(slow_effective_rank(slow_correlation(a, b)), abs=1e-9)
    assert 1 - 1e-9 <= rank <= min(widths) + 1e-9


@pytest.mark.parametrize("width", [1, 3, 8])
def test_effective_rank_of_uncorrelated_channels_is_their_number(width):
    signs = torch.eye(width).double().repeat_interleave(2, dim=0)
    signs[::2] *= -1  # Rows +-e_i: means 0, all channels uncorrelated.
    assert effective_rank(moments_of(signs, signs)) == pytest.approx((width,), abs=1e-12)


def test_effective_rank_of_one_shared_signal_is_one_and_dead_channels_add_nothing():
    signal = normal(40, 1)
    a = torch.cat([signal, -2 * signal, torch.ones(40, 1).double()], dim=1)
    b = torch.cat([signal + 3, torch.zeros(40, 2).double()], dim=1)
    assert effective_rank(moments_of(a, b)) == pytest.approx((1.0,), abs=1e-9)


def test_effective_rank_of_a_dead_layer_is_zero_and_of_a_non_finite_one_nan():
    a, b = related()
    assert effective_rank(moments_of(a, torch.zeros_like(b))) == (0.0,)
    a[3, 1] = float("nan")
    assert np.isnan(effective_rank(moments_of(a, b))[0])


def test_reading_does_not_change_the_moments():
    """The matrix is computed in place: on a copy."""
    moments = moments_of(*related())
    functions = (signed_mean, absolute_mean, effective_rank, dead_units)
    first = [function(moments) for function in functions]
    assert [function(moments) for function in functions] == first


def three_layers(first, second):
    """Two edges of layer ``b``: what it gives in some examples, and what it gives in others."""
    edges = [("a", "b"), ("b", "c")]
    moments = CoMoments(edges)
    for edge, rows in zip(edges, (first, second), strict=True):
        part = CoMoments([edge])
        part.update(dict(zip(edge, rows, strict=True)))
        moments.absorb(edge, part.parts[edge])
    return moments


def test_a_channel_is_dead_only_if_it_is_at_every_edge_of_its_layer():
    a, b = related()
    still = b.clone()
    still[:, :2] = 1.0
    assert dead_units(three_layers((a, still), (still, a))) == {"a": 0, "b": 2, "c": 0}
    for first, second in ((still, b), (b, still)):
        assert dead_units(three_layers((a, first), (second, a))) == {"a": 0, "b": 0, "c": 0}
