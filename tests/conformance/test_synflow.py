"""What the method of arXiv 2006.05467 promises, on networks small enough to look at.

Bias-free networks 20-64-64-64-8 with ReLU in float64: the synaptic flow is conserved, rounds with
a constant factor between their densities remove less than a layer holds, and so no layer is
emptied down to a single weight in each.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import Literal

import pytest
import torch
from torch import nn

from benchmarks.synflow import networks
from benchmarks.synflow.measures import sizes
from benchmarks.synflow.rounds import (
    Pruned,
    Untrained,
    kept_at,
    prune_in_rounds,
    prune_once,
    prune_to_cut,
)
from infcop.core.mask import Masks
from infcop.core.score import Magnitude, SynFlow
from infcop.masking.groups import Groups
from infcop.masking.prune import emptied, shrink
from infcop.masking.rounds import round_counts
from infcop.methods.synflow import synflow
from infcop.models.prunable import find_prunable
from infcop.models.zoo.parts import kaiming_normal

WIDTHS = (20, 64, 64, 64, 8)
TOTAL = sum(a * b for a, b in pairwise(WIDTHS))
LAYERS = len(WIDTHS) - 1
METHOD = synflow()

every_seed = pytest.mark.parametrize("seed", range(3))


def untrained(seed: int) -> Untrained:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for entering, leaving in pairwise(WIDTHS):
        layers += [nn.Linear(entering, leaving, bias=False), nn.ReLU()]
    model = nn.Sequential(*layers[:-1]).double()
    kaiming_normal(model)
    batch = (torch.zeros(1, WIDTHS[0], dtype=torch.float64), torch.zeros(1, dtype=torch.int64))
    return Untrained(model, [batch])


@cache
def in_rounds(seed: int, kept: int) -> tuple[Untrained, Pruned]:
    network = untrained(seed)
    return network, prune_in_rounds(network, METHOD, kept)


# -- no collapse -----------------------------------------------------------------------------------


@every_seed
def test_six_weights_leave_every_layer_one_or_two_and_a_path(seed: int) -> None:
    network, pruned = in_rounds(seed, 6)
    assert sorted(pruned.masks.kept_per_layer.values()) == [1, 1, 2, 2]
    assert network.flow(pruned.masks) > 0
    assert 0 < pruned.largest_ratio < 1


@every_seed
def test_as_many_weights_as_layers_leave_one_in_each(seed: int) -> None:
    network, pruned = in_rounds(seed, LAYERS)
    assert set(pruned.masks.kept_per_layer.values()) == {1}
    assert network.flow(pruned.masks) > 0


@every_seed
@pytest.mark.parametrize("kept", [6, LAYERS])
def test_one_shot_magnitude_empties_all_layers_but_the_first(seed: int, kept: int) -> None:
    network = untrained(seed)
    weights = network.scores(Magnitude(), network.dense)
    masks = prune_once(weights, network.dense, METHOD, kept)
    first, *others = network.dense
    assert masks.kept_per_layer[first] == kept
    assert emptied(network.dense, masks) == tuple(others)
    assert network.flow(masks) == 0


@every_seed
def test_a_single_round_removes_more_than_a_layer_holds(seed: int) -> None:
    network = untrained(seed)
    pruned = prune_in_rounds(network, METHOD.model_copy(update={"rounds": 1}), 6)
    assert pruned.largest_ratio > 1
    assert emptied(network.dense, pruned.masks)


@every_seed
def test_linear_spacing_removes_more_at_once(seed: int) -> None:
    linear = METHOD.model_copy(update={"spacing": "linear"})
    pruned = prune_in_rounds(untrained(seed), linear, 50)
    assert in_rounds(seed, 50)[1].largest_ratio < 1 < pruned.largest_ratio


# -- what the scores and the counts keep to --------------------------------------------------------


@every_seed
@pytest.mark.parametrize("kept", [TOTAL, 50, 6])
def test_all_layers_hold_the_same_score_under_masks(seed: int, kept: int) -> None:
    network, pruned = in_rounds(seed, kept)
    scores = network.scores(SynFlow(), pruned.masks)
    held = [float(score.sum()) for score in scores.values()]
    assert held == pytest.approx([network.flow(pruned.masks)] * LAYERS, rel=1e-12)
    for entering, leaving in pairwise(scores.values()):
        torch.testing.assert_close(entering.sum(dim=1), leaving.sum(dim=0), rtol=1e-12, atol=0)


@pytest.mark.parametrize("spacing", ["exponential", "linear"])
@pytest.mark.parametrize("kept", [6, 99, TOTAL // 2])
def test_every_round_keeps_what_the_formula_says(
    spacing: Literal["exponential", "linear"], kept: int
) -> None:
    """``N - floor((1 - rho_k) N)``, with ``rho_k`` in exact numbers where it has them."""
    rounds = 100
    counts = round_counts(TOTAL, kept, rounds, spacing)
    density = Fraction(kept, TOTAL)
    for number, count in enumerate(counts, start=1):
        if spacing == "linear":
            removed = (1 - density) * number / rounds * TOTAL
            assert count == TOTAL - math.floor(removed)
        else:
            # rho ** (k / n) N <= count < rho ** (k / n) N + 1, without roots.
            power = density**number * Fraction(TOTAL) ** rounds
            assert (count - 1) ** rounds < power <= count**rounds
    assert counts[-1] == kept


@every_seed
@pytest.mark.parametrize("spacing", ["exponential", "linear"])
def test_masks_shrink_round_by_round_to_these_counts(
    seed: int, spacing: Literal["exponential", "linear"]
) -> None:
    method = METHOD.model_copy(update={"spacing": spacing, "rounds": 20})
    network = untrained(seed)
    masks = network.dense
    for count in round_counts(TOTAL, 200, 20, spacing):
        scores = network.scores(SynFlow(), masks)
        smaller = shrink(scores, masks, method, count, groups=Groups(), target_kept=200)
        assert smaller.kept == count
        assert not any((smaller[name] & ~masks[name]).any() for name in masks)
        masks = smaller
    whole = prune_in_rounds(untrained(seed), method, 200)
    assert whole.counts == round_counts(TOTAL, 200, 20, spacing)
    assert all(torch.equal(whole.masks[name], masks[name]) for name in masks)


@every_seed
def test_the_scale_of_a_layer_and_signs_change_no_mask(seed: int) -> None:
    network, pruned = in_rounds(seed, 50)
    model = untrained(seed).model
    with torch.no_grad():
        model.get_parameter("2.weight").mul_(-8)
    other = prune_in_rounds(Untrained(model, [batch_of_ones()]), METHOD, 50)
    assert all(torch.equal(pruned.masks[n], other.masks[n]) for n in network.dense)


def batch_of_ones() -> tuple[torch.Tensor, torch.Tensor]:
    """Return other data than ``untrained`` has: they make no difference either."""
    return torch.ones(5, WIDTHS[0], dtype=torch.float64), torch.ones(5, dtype=torch.int64)


# -- the benchmark ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "entries", "layers"),
    [("vgg-16", 14_761_664, 14), ("resnet-18", 11_210_432, 21)],
)
def test_the_networks_of_the_benchmark_have_the_published_sizes(
    network: str, entries: int, layers: int
) -> None:
    with torch.device("meta"):
        found = find_prunable(networks.NETWORKS[network](num_classes=100))
    assert sum(math.prod(shape) for shape in found.shapes.values()) == entries
    assert len(found.names) == layers


def test_the_largest_compression_is_one_weight_per_layer() -> None:
    found = sizes("vgg-16", 0.1)["no data"]
    assert found["exponent"] == pytest.approx(math.log10(found["entries"] / found["layers"]))


def test_compressions_are_counted_as_in_the_source() -> None:
    assert [kept_at(14_761_664, a) for a in (0, 2, 6)] == [14_761_664, 147_617, 15]


def test_what_is_removed_is_compared_with_the_smallest_layer() -> None:
    scores = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([4.0, 8.0])}
    before = Masks.full({"a": (2,), "b": (2,)})
    after = Masks({"a": torch.tensor([False, True]), "b": torch.tensor([False, True])})
    assert prune_to_cut(scores, before, after) == pytest.approx(5 / 3)


def test_no_path_is_left_once_a_unit_has_inputs_only() -> None:
    network = untrained(0)
    masks = {name: torch.zeros_like(mask) for name, mask in network.dense.items()}
    for mask in masks.values():
        mask[0, 0] = True
    assert network.flow(Masks(masks)) > 0
    second = list(masks)[1]
    masks[second] = masks[second].roll(1, dims=0)
    assert network.flow(Masks(masks)) == 0
