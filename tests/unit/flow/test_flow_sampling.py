from __future__ import annotations

import numpy as np
import pytest
import torch

from infcop.core.edges import Edges
from infcop.errors import FlowError
from infcop.flow.information import absolute_mean, signed_mean
from infcop.flow.sampling import (
    STATISTICS,
    Precision,
    bias_bounds,
    covariances,
    distance_error,
    standard_errors,
)
from infcop.flow.stream import InformationStream

EDGE = ("a", "b")
PAIR = Edges((EDGE,))
CHAIN = Edges((("a", "b"), ("b", "c")))
MEANS = {"information.signed": signed_mean, "information.absolute": absolute_mean}


def draw(examples, seed=0):
    """Three layers of 4, 3 and 2 channels, each made of the one before.

    All channels of neighbours are correlated, by 0.26 or more: where a correlation is 0 its
    absolute value has a kink, and the standard error is too large.
    """
    generator = np.random.default_rng(seed)
    fixed = np.random.default_rng(57)
    first, second = (
        fixed.uniform(0.4, 1, shape) * fixed.choice([-1, 1], shape) for shape in ((4, 3), (3, 2))
    )
    a = generator.standard_normal((examples, 4))
    b = np.maximum(a @ first, 0) + 0.5 * generator.standard_normal((examples, 3))
    c = b @ second + generator.standard_normal((examples, 2))
    return {("a", 0): 5 + 0.1 * a, ("b", 0): b, ("c", 0): c}


def streamed(rows, edges=CHAIN, batch=64):
    stream = InformationStream(edges, keep=True)
    rows = {tap: torch.as_tensor(values) for tap, values in rows.items()}
    examples = len(next(iter(rows.values())))
    for start in range(0, examples, batch):
        stream.add([{tap: values[start : start + batch] for tap, values in rows.items()}])
    stream.flush()
    return stream


def vectors(rows, edges=CHAIN):
    moments = streamed(rows, edges).moments
    return {name: np.array(mean(moments)) for name, mean in MEANS.items()}


def errors_of(stream, edges=CHAIN):
    found = covariances(stream.moments, edges, stream.kept)
    return {name: np.array(standard_errors(found[name])) for name in STATISTICS}


@pytest.mark.parametrize("rho", [0.0, 0.5, -0.9])
def test_one_pair_of_gaussian_channels_has_the_known_error(rho):
    """``(1 - rho^2) / sqrt(N)``; with these moments exactly, so no sampling error."""
    generator = np.random.default_rng(1)
    examples = 40_000
    x = generator.standard_normal(examples)
    y = rho * x + np.sqrt(1 - rho**2) * generator.standard_normal(examples)
    stream = streamed({("a", 0): x[:, None], ("b", 0): y[:, None]}, PAIR, batch=5000)
    for name, errors in errors_of(stream, PAIR).items():
        assert errors == pytest.approx([(1 - rho**2) / examples**0.5], rel=0.03), name


def test_one_pair_of_channels_has_the_influence_function_exactly():
    """Against the textbook formula, written out for one pair."""
    rows = {("a", 0): draw(300)["a", 0][:, :1], ("b", 0): draw(300)["b", 0][:, :1]}
    z = [(values[:, 0] - values.mean()) / values.std() for values in rows.values()]
    rho = float((z[0] * z[1]).mean())
    influence = z[0] * z[1] - rho * (z[0] ** 2 + z[1] ** 2) / 2
    expected = np.sqrt((influence**2).sum()) / 300
    errors = errors_of(streamed(rows, PAIR), PAIR)
    assert errors["information.signed"] == pytest.approx([expected], rel=1e-12)
    assert errors["information.absolute"] == pytest.approx([expected], rel=1e-12)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_errors_are_the_spread_over_fresh_samples(statistic):
    """300 samples: the spread itself is known to 4 %."""
    repeats = np.array([vectors(draw(400, seed))[statistic] for seed in range(300)])
    promised = np.mean(
        [errors_of(streamed(draw(400, seed)))[statistic] for seed in range(20)], axis=0
    )
    np.testing.assert_allclose(promised, repeats.std(axis=0, ddof=1), rtol=0.15)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_covariance_between_edges_is_that_over_fresh_samples(statistic):
    repeats = np.array([vectors(draw(400, seed))[statistic] for seed in range(300)])
    stream = streamed(draw(20_000, 1000), batch=2000)
    promised = covariances(stream.moments, CHAIN, stream.kept)[statistic].numpy() * 20_000 / 400
    correlations = [
        matrix[0, 1] / np.sqrt(matrix[0, 0] * matrix[1, 1])
        for matrix in (promised, np.cov(repeats.T))
    ]
    assert correlations[0] == pytest.approx(correlations[1], abs=0.15)
    assert abs(correlations[0]) > 0.2


@pytest.mark.parametrize("statistic", STATISTICS)
def test_errors_are_those_of_a_bootstrap(statistic):
    rows = draw(500)
    generator = np.random.default_rng(7)
    resampled = []
    for _ in range(300):
        chosen = generator.integers(0, 500, 500)
        resampled.append(vectors({tap: v[chosen] for tap, v in rows.items()})[statistic])
    promised = errors_of(streamed(rows))[statistic]
    np.testing.assert_allclose(promised, np.std(resampled, axis=0, ddof=1), rtol=0.15)


def test_errors_of_the_absolute_mean_of_independent_channels_are_too_large_never_too_small():
    def independent(seed):
        generator = np.random.default_rng(seed)
        return {(name, 0): generator.standard_normal((200, 3)) for name in "ab"}

    repeats = [vectors(independent(seed), PAIR)["information.absolute"] for seed in range(200)]
    promised = errors_of(streamed(independent(0), PAIR), PAIR)["information.absolute"]
    assert np.std(repeats) < promised[0] < 3 * np.std(repeats)


@pytest.mark.parametrize("examples", [50, 400])
def test_bias_bounds_of_independent_channels_are_the_whole_absolute_mean(examples):
    """Few are left out for being clear by chance; 200 samples of 64 pairs tell the mean to 1 %."""

    def moments(seed):
        generator = np.random.default_rng(seed)
        rows = {(name, 0): generator.standard_normal((examples, 8)) for name in "ab"}
        return streamed(rows, PAIR).moments

    drawn = [moments(seed) for seed in range(200)]
    promised = np.mean([bias_bounds(one).numpy() for one in drawn])
    assert promised == pytest.approx(np.mean([absolute_mean(one) for one in drawn]), rel=0.05)
    assert promised == pytest.approx((2 / np.pi / examples) ** 0.5, rel=0.02)


def test_clear_correlations_and_dead_channels_have_no_bias_bound():
    """Only the entries that may be 0 are counted, among all."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((400, 3))
    clear = {("a", 0): x[:, :2], ("b", 0): x[:, :2] @ np.array([[1.0, 1.0], [1.0, -1.0]])}
    assert bias_bounds(streamed(clear, PAIR).moments).tolist() == [0]
    dead = {("a", 0): x[:, :1], ("b", 0): np.full((400, 2), 3.0)}
    assert bias_bounds(streamed(dead, PAIR).moments).tolist() == [0]
    # One of three consumer channels follows the producer, one is dead, and one has nothing to do
    # with it.
    mixed = np.stack([x[:, 0], np.ones(400), x[:, 1]], axis=1)
    bound = bias_bounds(streamed({("a", 0): x[:, :1], ("b", 0): mixed}, PAIR).moments)
    assert bound.tolist() == pytest.approx([(2 / np.pi / 400) ** 0.5 / 3])


def test_every_edge_has_a_bias_bound_of_its_own():
    rows = draw(400)
    rows["c", 0] = np.random.default_rng(9).standard_normal((400, 2))
    bounds = bias_bounds(streamed(rows).moments)
    assert bounds[0] == 0
    assert bounds[1] > 0


@pytest.mark.parametrize("batch", [1, 7, 64, 500])
def test_batches_do_not_change_the_errors(batch):
    rows = draw(500)
    expected, got = errors_of(streamed(rows)), errors_of(streamed(rows, batch=batch))
    for name in STATISTICS:
        assert got[name] == pytest.approx(expected[name], rel=1e-10)


def siamese(rows, second):
    edges = Edges((EDGE,), {EDGE: ((0, 0), (1, 1))})
    return edges, {**rows, ("a", 1): second["a", 0], ("b", 1): second["b", 0]}


def test_calls_of_one_example_count_as_one_draw():
    """Twice the same call tells nothing new; another call of equal example does."""
    rows = {tap: values for tap, values in draw(600).items() if tap[0] != "c"}
    single = errors_of(streamed(rows, PAIR), PAIR)
    edges, doubled = siamese(rows, rows)
    same = errors_of(streamed(doubled, edges), edges)
    edges, fresh = siamese(rows, draw(600, 5))
    independent = errors_of(streamed(fresh, edges), edges)
    for name in STATISTICS:
        assert same[name] == pytest.approx(single[name], rel=1e-10)
        assert independent[name] == pytest.approx(single[name] / 2**0.5, rel=0.15)


def test_dead_channels_and_dead_layers_add_no_error():
    rows = draw(300)
    rows["b", 0][:, 0] = 4.0
    rows["c", 0][:] = -1.0
    errors = errors_of(streamed(rows))
    for name in STATISTICS:
        assert errors[name][0] > 0
        assert errors[name][1] == 0


def test_batches_without_an_edge_add_nothing_to_its_error():
    """Which layers run depends on the batch."""
    rows = draw(400)
    stream = InformationStream(CHAIN, keep=True)
    for start in range(0, 400, 50):
        names = "abc" if start < 200 else "bc"
        stream.add(
            [{(n, 0): torch.as_tensor(rows[n, 0][start : start + 50].copy()) for n in names}]
        )
    stream.flush()
    errors = errors_of(stream)
    half = errors_of(streamed({tap: values[:200] for tap, values in rows.items()}))
    whole = errors_of(streamed(rows))
    for name in STATISTICS:
        assert errors[name] == pytest.approx([half[name][0], whole[name][1]], rel=1e-10)


def test_a_share_without_examples_has_no_covariance():
    """One of several processes: the others' shares are added to its zeros."""
    moments = streamed(draw(50)).moments
    for name, covariance in covariances(moments, CHAIN, []).items():
        assert name in STATISTICS
        assert torch.equal(covariance, torch.zeros(2, 2).double())


def test_shares_add_up_to_the_covariance_of_all():
    stream = streamed(draw(500), batch=50)
    kept = [{t: v[i : i + 100] for t, v in stream.kept[0].items()} for i in range(0, 500, 100)]
    whole = covariances(stream.moments, CHAIN, stream.kept)
    first, second = (covariances(stream.moments, CHAIN, part) for part in (kept[:2], kept[2:]))
    for name in STATISTICS:
        torch.testing.assert_close(first[name] + second[name], whole[name])


def test_distance_error_far_from_the_reference_is_that_along_the_difference():
    covariance = torch.tensor([[0.04, 0.01], [0.01, 0.09]]).double()
    assert distance_error((10.0, 0.0), (0.0, 0.0), covariance) == pytest.approx(0.2)
    assert distance_error((0.0, -10.0), (0.0, 0.0), covariance) == pytest.approx(0.3)
    diagonal = distance_error((13.0, 11.0), (3.0, 1.0), covariance)
    assert diagonal == pytest.approx(((0.04 + 0.09 + 0.02) / 2) ** 0.5)


def test_distance_error_at_the_reference_is_the_whole_spread():
    covariance = torch.diag(torch.tensor([0.04, 0.09])).double()
    spread = 0.13**0.5
    assert distance_error((1.0, 2.0), (1.0, 2.0), covariance) == pytest.approx(spread)
    assert distance_error((0.99 * spread, 0), (0, 0), covariance) == pytest.approx(spread)
    assert distance_error((1.01 * spread, 0), (0, 0), covariance) == pytest.approx(0.2)


def test_distance_error_is_the_spread_of_the_distance_over_fresh_samples():
    reference = np.array([0.5, -0.4])
    distances = [
        np.linalg.norm(vectors(draw(400, seed))["information.signed"] - reference)
        for seed in range(300)
    ]
    stream = streamed(draw(400, 1000))
    covariance = covariances(stream.moments, CHAIN, stream.kept)["information.signed"]
    promised = distance_error(signed_mean(stream.moments), tuple(reference), covariance)
    assert promised == pytest.approx(np.std(distances, ddof=1), rel=0.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"statistic": "information.singed"}, "did you mean 'information.signed'"),
        ({"statistic": "gradient.norm"}, "unknown statistic 'gradient.norm'"),
        ({"within": 0.0}, r"within > 0 and at_least >= 2, got within=0.0, at_least=256"),
        ({"within": -1.0}, "within > 0"),
        ({"within": float("nan")}, "within > 0"),
        ({"at_least": 1}, "at_least=1"),
        ({"reference": (0.1,)}, "a reference of 2 entries, one per edge, got 1"),
        ({"reference": (0.1, 0.2, 0.3)}, "got 3"),
    ],
)
def test_a_precision_that_makes_no_sense_is_refused(change, message):
    fields = {"reference": (0.1, 0.2), "statistic": "information.signed", "within": 0.1}
    Precision(**fields).check(CHAIN)
    with pytest.raises(FlowError, match=message):
        Precision(**{**fields, **change}).check(CHAIN)
