"""What every score keeps to, found in the settings: shape, randomness, scale, and odd networks."""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import infcop
from infcop.core.mask import Masks
from infcop.core.method import MethodConfig
from infcop.core.score import Score
from infcop.errors import PruningError
from infcop.masking.groups import Groups
from infcop.masking.prune import shrink
from infcop.scoring import SCORES, needs_data
from infcop.tasks.classification import Classification
from tests.end_to_end.conftest import toy_batches
from tests.reference import axes
from tests.reference.axis_networks import (
    Branches,
    batches,
    convolutional,
    mask_weights,
    moved,
    scored,
    shapes_of,
    straight,
    weights_of,
)
from tests.reference.scores import SCORE_TWINS
from tests.reference.states import state_of

EVERY = axes.settings(Score)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
IMAGE, VECTOR = (1, 8, 8), (6,)

every_score = pytest.mark.parametrize("score", EVERY.values(), ids=EVERY)


def test_every_score_of_the_settings_is_swept() -> None:
    assert axes.unprepared(Score) == ""
    assert axes.without_twin(Score, SCORE_TWINS) == ""
    assert {score.kind for score in EVERY.values()} == set(SCORES)


def pick(scores: dict[str, Tensor], masks: Masks, part: float, scope: Any = "global") -> Masks:
    """Return what is left of the survivors by these scores."""
    method = MethodConfig(name="mine", scope=scope, empty_layers="report")
    kept = max(round(part * masks.kept), 1)
    return shrink(scores, masks, method, kept, groups=Groups(), target_kept=1)


def holes(shapes: axes.Shapes, part: float = 0.6) -> Masks:
    generator = torch.Generator().manual_seed(3)
    return Masks({n: torch.rand(shape, generator=generator) < part for n, shape in shapes.items()})


def same(first: Masks | dict[str, Tensor], second: Masks | dict[str, Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[n], second[n]) for n in first)


# -- form and randomness ---------------------------------------------------------------------------


@every_score
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("device", DEVICES)
def test_scores_are_numbers_of_their_own_in_the_shape_of_the_weights(
    score: Any, dtype: torch.dtype, device: str
) -> None:
    model = convolutional().to(device, dtype).to(memory_format=torch.channels_last)
    data = [(x.to(device), y.to(device)) for x, y in batches(*IMAGE, dtype=dtype)]
    before = state_of(model)
    scores = scored(score, model, data)
    assert state_of(model) == before
    assert list(scores) == list(weights_of(model))
    for name, weight in weights_of(model).items():
        found = scores[name]
        assert found.shape == weight.shape
        assert found.device == weight.device
        assert found.is_floating_point()
        assert torch.promote_types(found.dtype, dtype) == found.dtype
        assert not found.requires_grad
        assert bool(found.isfinite().all())
        found.fill_(7.0)
    # Nothing of the model lies in that memory.
    assert state_of(model) == before


@every_score
def test_the_same_twice_bit_for_bit_whatever_was_drawn_before(score: Any) -> None:
    model, data = convolutional(), batches(*IMAGE)
    model.insert(6, nn.Dropout(0.3))
    first = scored(score, model, data)
    torch.manual_seed(99), np.random.seed(9), random.seed(9)
    second = scored(score, deepcopy(model), data)
    assert same(first, second)


@every_score
def test_float64_says_the_same_with_more_digits(score: Any) -> None:
    narrow = scored(score, convolutional(), batches(*IMAGE))
    data = [(x.double(), y) for x, y in batches(*IMAGE)]
    wide = scored(score, convolutional().double(), data)
    largest = max(float(values.abs().max()) for values in wide.values())
    for name, values in wide.items():
        assert values.dtype == torch.float64
        torch.testing.assert_close(narrow[name].double(), values, rtol=1e-3, atol=1e-5 * largest)


@every_score
def test_what_is_said_of_pruned_entries_revives_none(score: Any) -> None:
    model, data = convolutional(), batches(*IMAGE)
    masks = holes(shapes_of(model))
    mask_weights(model, masks)
    scores = scored(score, model, data, masks)
    after = pick(scores, masks, 0.5)
    assert after <= masks
    assert after.kept == round(0.5 * masks.kept)
    for value in (float("inf"), float("nan")):
        loud = {name: values.masked_fill(~masks[name], value) for name, values in scores.items()}
        assert same(pick(loud, masks, 0.5), after)


@every_score
@pytest.mark.parametrize("part", [1.0, 0.6], ids=["dense", "pruned"])
def test_scores_are_those_of_the_slow_reference(score: Any, part: float) -> None:
    model, data = straight(), batches(*VECTOR, dtype=torch.float64)
    masks = holes(shapes_of(model), part)
    mask_weights(model, masks)
    found = scored(score, model, data, masks, seed=5)
    expected = SCORE_TWINS[score.kind](score, model, Classification([0], [0]), data, seed=5)
    assert list(found) == list(expected)
    for name, values in found.items():
        largest = float(np.abs(expected[name]).max())
        assert largest > 0
        np.testing.assert_allclose(values, expected[name], rtol=1e-6, atol=1e-8 * largest)


# -- what changes no mask --------------------------------------------------------------------------


def scaled(model: nn.Module, factors: dict[str, float]) -> nn.Module:
    """Multiply whole layers, by powers of two so that nothing is rounded."""
    with torch.no_grad():
        for name, factor in factors.items():
            model.get_parameter(name).mul_(factor)
    return model


def with_other_signs(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(torch.randint(0, 2, weight.shape, generator=generator) * 2 - 1)
    return model


def with_other_weights(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(generator=generator)
    return model


CHANGES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "all layers larger": lambda model: scaled(model, dict.fromkeys(weights_of(model), 4.0)),
    "one layer larger": lambda model: scaled(model, {"2.weight": 8.0}),
    # In a network without biases this leaves every output as it was.
    "one larger, the next smaller": lambda m: scaled(m, {"0.weight": 8.0, "2.weight": 0.125}),
    "other signs": with_other_signs,
    "other weights": with_other_weights,
}

BY_SIZE = {"all layers larger", "one layer larger", "one larger, the next smaller"}
BY_SLOPE = {"one larger, the next smaller"}

UNCHANGED: dict[str, tuple[set[str], set[str]]] = {
    "magnitude": ({"all layers larger", "other signs"}, {*BY_SIZE, "other signs"}),
    "random": (set(CHANGES), set(CHANGES)),
    "snip": (BY_SLOPE, BY_SLOPE),
    "grasp": (set(), set()),
    "synflow": ({*BY_SIZE, "other signs"}, {*BY_SIZE, "other signs"}),
    "taylor": (BY_SLOPE, BY_SLOPE),
    "fisher": (BY_SLOPE, BY_SLOPE),
    "wanda": (set(), BY_SIZE),
    "correlation": ({"all layers larger"}, BY_SIZE),
    "movement": (BY_SLOPE, BY_SLOPE),
}
"""Changes of the weights after which the same entries are chosen, of all layers and of each."""


def test_every_score_says_what_it_does_not_depend_on() -> None:
    lacking = sorted(set(SCORES) - set(UNCHANGED))
    assert not lacking, f"add {lacking} to UNCHANGED: what changes of the weights change no mask?"


@every_score
@pytest.mark.parametrize("change", CHANGES)
def test_these_changes_of_the_weights_and_no_others_change_no_mask(score: Any, change: str) -> None:
    data = batches(*VECTOR, dtype=torch.float64)
    plain, other = straight(), CHANGES[change](straight())
    full = Masks.full(shapes_of(plain))
    first, second = (scored(score, model, data) for model in (plain, other))
    for scope, unchanged in zip(("global", "layerwise"), UNCHANGED[score.kind], strict=True):
        found = [
            same(pick(first, full, part, scope), pick(second, full, part, scope))
            for part in (0.7, 0.3)
        ]
        assert all(found) == (change in unchanged), scope


@pytest.mark.parametrize(
    "score", [s for s in EVERY.values() if s.kind == "snip"], ids=lambda s: s.mode
)
def test_the_shares_of_snip_sum_to_one_over_the_survivors(score: Any) -> None:
    model, data = convolutional().double(), batches(*IMAGE, dtype=torch.float64)
    masks = holes(shapes_of(model))
    # Pruned weights have no part in it, even where nobody has set them to zero.
    scores = scored(score, model, data, masks)
    assert sum(float(values[masks[name]].sum()) for name, values in scores.items()) == (
        pytest.approx(1, rel=1e-12)
    )


# -- nothing to choose by --------------------------------------------------------------------------


def attempted(function: Callable[[], Any]) -> tuple[Any, str]:
    """Return what a function gives, or why it refused to."""
    try:
        return function(), ""
    except PruningError as error:
        return None, str(error)


def explains_zeros(score: Any, message: str) -> bool:
    reasons = ("every surviving weight scores 0", "expected flow from the input to the output")
    return message.startswith(f"score '{score.kind}': ") and any(r in message for r in reasons)


@every_score
@pytest.mark.parametrize("value", [0.0, 0.25, -0.25])
def test_equal_weights_are_scored_or_refused(score: Any, value: float) -> None:
    model, data = straight(), batches(*VECTOR, dtype=torch.float64)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(value)
    full = Masks.full(shapes_of(model))
    scores, message = attempted(lambda: scored(score, model, data))
    if message:
        # Units that are all alike still matter, unless they are dead.
        assert value <= 0
        assert explains_zeros(score, message)
    else:
        assert all(bool(values.isfinite().all()) for values in scores.values())
        assert pick(scores, full, 0.5).kept == round(0.5 * full.kept)


@every_score
def test_inputs_of_zero_matter_only_to_scores_that_look_at_them(score: Any) -> None:
    model, data = straight(), batches(*VECTOR, dtype=torch.float64)
    blank = [(torch.zeros_like(inputs), labels) for inputs, labels in data]
    scores, message = attempted(lambda: scored(score, model, blank))
    if needs_data(score) or score.kind == "movement":
        assert explains_zeros(score, message)
    else:
        assert same(scores, scored(score, model, data))


@every_score
@pytest.mark.parametrize("count", [0, 2])
def test_a_loader_without_examples_is_told_where_they_are_needed(score: Any, count: int) -> None:
    model, data = straight(), batches(*VECTOR, dtype=torch.float64)
    nothing = batches(*VECTOR, sizes=[0] * count, dtype=torch.float64)
    steps = moved(model, data)
    scores, message = attempted(lambda: scored(score, model, nothing, movement=steps))
    if message:
        assert "at least one batch with an example, got none" in message
    else:
        assert not needs_data(score)
        assert same(scores, scored(score, model, data))


@every_score
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_name_a_layer_or_count_as_the_largest(
    score: Any, value: float
) -> None:
    model, data = convolutional(), batches(*IMAGE)
    full = Masks.full(shapes_of(model))
    with torch.no_grad():
        model.get_parameter("7.weight")[0, 0] = value
    after, message = attempted(lambda: pick(scored(score, model, data), full, 0.5))
    if message:
        assert any(f"'{name}'" in message for name in full)
        assert "NaN" in message
    elif SCORES[score.kind].evidence != "noise":
        assert value == float("inf")
        assert after["7.weight"][0, 0]


# -- odd networks ----------------------------------------------------------------------------------


@every_score
def test_a_layer_that_is_empty_stays_so_and_disturbs_no_other(score: Any) -> None:
    torch.manual_seed(0)
    model, data = Branches(), batches(*VECTOR)
    shapes = shapes_of(model)
    empty = torch.zeros(shapes["first.weight"], dtype=torch.bool)
    masks = Masks({**Masks.full(shapes), "first.weight": empty})
    mask_weights(model, masks)
    scores = scored(score, model, data, masks)
    assert all(bool(scores[name][mask].isfinite().all()) for name, mask in masks.items())
    for scope in ("global", "layerwise"):
        after = pick(scores, masks, 0.6, scope)
        assert after <= masks
        assert after.kept == round(0.6 * masks.kept)


@every_score
def test_layers_of_one_entry_are_scored(score: Any) -> None:
    torch.manual_seed(0)
    # Its unit is alive for every input: with a dead one there is nothing to score.
    model = nn.Sequential(nn.Linear(6, 1), nn.Linear(1, 1), nn.Linear(1, 3))
    scores = scored(score, model, batches(*VECTOR))
    full = Masks.full(shapes_of(model))
    assert {name: values.numel() for name, values in scores.items()}["1.weight"] == 1
    for scope in ("global", "layerwise"):
        assert pick(scores, full, 0.4, scope).kept == round(0.4 * full.kept)


# -- in a search -----------------------------------------------------------------------------------


@every_score
def test_a_search_by_every_score_ends_at_its_density(tmp_path: Path, score: Any) -> None:
    data = toy_batches(2)
    axis = {"score": score, "scope": "global", "keep_per_layer": 1, "rounds": 2}
    result = infcop.search(
        convolutional(),
        infcop.Classification(data, data),
        run_dir=tmp_path,
        method=MethodConfig(name="mine", **axis),
        density=0.6,
        dense={"passes": 1},
        levels={"max_passes": 0.5},
        final={"passes": 0},
        execution={"device": "cpu", "threads": 1},
    )
    assert result.outcome.kept == round(0.6 * result.outcome.prunable)
    for name, mask in result.masks.items():
        assert bool((result.model.state_dict()[name][~mask] == 0).all())
