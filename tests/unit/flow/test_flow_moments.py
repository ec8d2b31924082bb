from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infcop.errors import FlowError
from infcop.flow.moments import CoMoments, centred, epsilon

EDGES = [("a", "b"), ("b", "c"), ("a", "c")]
WIDTHS = {"a": 3, "b": 4, "c": 2}
SPLIT = (slice(0, 8), slice(8, 20))


def activations(examples, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(examples, width, generator=generator, dtype=torch.float64).to(dtype)
        for name, width in WIDTHS.items()
    }


def measured(values, sizes=None):
    moments = CoMoments(EDGES)
    examples = len(values["a"])
    splits = {name: value.split(sizes or [examples]) for name, value in values.items()}
    for parts in zip(*splits.values(), strict=True):
        moments.update(dict(zip(splits, parts, strict=True)))
    return moments


def tensors(part):
    return (*(t for end in part.ends for t in (end.mean, end.m2)), part.cxy)


def assert_close(left, right, tolerance=1e-12):
    assert left.parts.keys() == right.parts.keys()
    for edge, mine in left.parts.items():
        other = right.parts[edge]
        assert mine.n == other.n
        for one, another in zip(tensors(mine), tensors(other), strict=True):
            torch.testing.assert_close(one, another, rtol=tolerance, atol=tolerance)


def test_equals_numpy():
    values = activations(50)
    moments = measured(values, [7, 20, 1, 22])
    a, b = values["a"].numpy(), values["b"].numpy()
    part = moments.parts["a", "b"]
    assert part.n == 50
    for end, values_of_end in ((part.producer, a), (part.consumer, b)):
        np.testing.assert_allclose(end.mean, values_of_end.mean(axis=0), atol=1e-13)
        np.testing.assert_allclose(end.m2, 50 * values_of_end.var(axis=0), atol=1e-12)
    covariance = np.cov(a.T, b.T, bias=True)[:3, 3:]
    np.testing.assert_allclose(part.cxy, 50 * covariance, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_any_split_gives_the_same(sizes, seed):
    sizes = [*sizes, 1]
    values = activations(sum(sizes), seed)
    assert_close(measured(values, sizes), measured(values))


def test_any_order_gives_the_same():
    values = activations(40)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    shuffled = {name: value[order] for name, value in values.items()}
    assert_close(measured(shuffled, [40]), measured(values, [13, 27]))


@settings(deadline=None, max_examples=30)
@given(sizes=st.tuples(*[st.integers(0, 12)] * 3), seed=st.integers(0, 99))
def test_merge_equals_joined_and_is_associative(sizes, seed):
    values = activations(sum(sizes), seed)
    splits = {name: value.split(list(sizes)) for name, value in values.items()}
    a, b, c = (measured({name: splits[name][i] for name in WIDTHS}) for i in range(3))
    assert_close(a.merge(b).merge(c), a.merge(b.merge(c)))
    assert_close(a.merge(b).merge(c), measured(values))


def test_empty_part_is_neutral_and_merge_changes_neither_part():
    part, empty = measured(activations(9)), CoMoments(EDGES)
    for merged in (part.merge(empty), empty.merge(part)):
        assert_close(merged, part, tolerance=0)
    merged.update(activations(5, seed=3))
    assert_close(part, measured(activations(9)), tolerance=0)
    assert not empty.parts


def test_a_merge_with_an_empty_part_shares_no_memory_with_the_other():
    part = measured(activations(9))
    merged = part.merge(CoMoments(EDGES))
    for tensor in (t for one in merged.parts.values() for t in tensors(one)):
        tensor.zero_()
    assert_close(part, measured(activations(9)), tolerance=0)


def test_merge_keeps_the_coarsest_epsilon():
    fine, coarse = measured(activations(4)), measured(activations(4, dtype=torch.float32))
    eps = torch.finfo(torch.float32).eps
    for merged in (fine.merge(coarse), coarse.merge(fine)):
        assert {end.eps for part in merged.parts.values() for end in part.ends} == {eps}
    assert fine.parts["a", "b"].producer.eps == torch.finfo(torch.float64).eps


def test_edges_keep_their_samples_apart():
    """An edge that some batches do not reach has fewer samples, the others have all."""
    values = activations(20)
    early, late = ({name: value[part] for name, value in values.items()} for part in SPLIT)
    moments = CoMoments(EDGES)
    moments.update(early)
    for edge in EDGES[:2]:
        moments.add(edge, *(centred(late[name].clone(), 0.0) for name in edge))
    assert [moments.parts[edge].n for edge in EDGES] == [20, 20, 8]
    expected = {edge: measured(values if edge in EDGES[:2] else early) for edge in EDGES}
    for edge in EDGES:
        pairs = zip(tensors(moments.parts[edge]), tensors(expected[edge].parts[edge]), strict=True)
        for one, another in pairs:
            torch.testing.assert_close(one, another, rtol=1e-12, atol=1e-12)


def test_centred_overwrites_its_values_with_their_deviations():
    values = activations(9)["a"]
    kept = values.clone()
    result = centred(values, 0.5)
    assert result.values is values
    np.testing.assert_allclose(values, kept - kept.mean(dim=0), atol=1e-15)
    np.testing.assert_allclose(result.channels.mean, kept.mean(dim=0), atol=1e-15)
    np.testing.assert_allclose(result.channels.m2, 9 * kept.numpy().var(axis=0), atol=1e-13)
    assert result.channels.eps == 0.5


@pytest.mark.parametrize(
    ("dtype", "of"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
)
def test_epsilon_is_that_of_the_type_that_pooling_gives(dtype, of):
    assert epsilon(dtype) == torch.finfo(of).eps


@pytest.mark.parametrize("constant", [1e4 + 1 / 3, -0.1, 1e-30, 7.0])
def test_constant_channel_has_no_deviation_at_all(constant):
    values = {
        name: torch.full((101, width), constant, dtype=torch.float64)
        for name, width in WIDTHS.items()
    }
    moments = measured(values, [3, 64, 1, 33])
    assert moments.parts.keys() == set(EDGES)
    for part in moments.parts.values():
        assert bool((part.cxy == 0).all())
        for end in part.ends:
            assert bool((end.m2 == 0).all())
            assert bool((end.mean == constant).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_is_accumulated_in_float64(dtype):
    values = activations(64, dtype=dtype)
    exact = {name: value.double() for name, value in values.items()}
    moments = measured(values, [60, 4])
    assert {t.dtype for part in moments.parts.values() for t in tensors(part)} == {torch.float64}
    assert_close(moments, measured(exact, [60, 4]), tolerance=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("sizes", [[10], [4, 6], [6, 1, 3], [1] * 10])
def test_non_finite_activations_stay_visible(bad, sizes):
    values = activations(10)
    values["b"][6, 1] = bad
    moments = measured(values, sizes)
    part = moments.parts["a", "b"]
    assert torch.isfinite(part.consumer.m2).tolist() == [True, False, True, True]
    assert torch.isfinite(part.cxy).tolist() == [[True, False, True, True]] * 3
    assert bool(torch.isfinite(moments.parts["a", "c"].cxy).all())


def test_update_takes_no_gradient_and_ignores_other_names():
    values = {name: value.requires_grad_() for name, value in activations(4).items()}
    moments = CoMoments([("a", "b")])
    moments.update(values)
    assert set(moments.parts) == {("a", "b")}
    assert not any(t.requires_grad for t in tensors(moments.parts["a", "b"]))


def test_moments_do_not_alias_the_activations():
    values = activations(2)
    given = {name: value.clone() for name, value in values.items()}
    moments = measured(values)
    assert all(torch.equal(values[name], given[name]) for name in values)
    values["a"].zero_()
    assert_close(moments, measured(given), tolerance=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": torch.zeros(4, 3, 2)}, r"expected real floating-point activations \[B, C\]"),
        ({"b": torch.zeros(3, 4)}, "with one B for all layers"),
        ({"b": torch.zeros(4, 4, dtype=torch.int64)}, "floating-point"),
        ({"b": torch.zeros(4, 4, dtype=torch.complex64)}, "real"),
        ({"b": torch.zeros(4, 9)}, "expected 4 channels of layer 'b' as before, got 9"),
    ],
)
def test_wrong_activations_are_refused(change, message):
    moments = measured(activations(4))
    with pytest.raises(FlowError, match=message):
        moments.update({**activations(4), **change})
    assert {part.n for part in moments.parts.values()} == {4}


def test_missing_layer_is_refused():
    values = activations(4)
    del values["c"]
    with pytest.raises(FlowError, match=r"got none of \['c'\]"):
        CoMoments(EDGES).update(values)


def test_merge_of_other_edges_or_widths_is_refused():
    part = measured(activations(4))
    with pytest.raises(FlowError, match="same edges"):
        part.merge(CoMoments([("a", "b")]))
    other = CoMoments(EDGES)
    other.update({name: torch.zeros(2, 8) for name in WIDTHS})
    with pytest.raises(FlowError, match="expected 3 channels"):
        part.merge(other)
