"""What the reference-code methods imitate, in whole searches, against arithmetic done by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import infcop
from infcop.methods import resolve_method
from tests.end_to_end.conftest import Search
from tests.reference.pruning import partly_rewound
from tests.reference.stopping import slow_distance

# Plain SGD at a constant rate, as in the authors' runs.
RECIPE: dict[str, Any] = {"lr": 0.1, "momentum": 0.0}
DENSE = {"passes": 2, "warmup_passes": 1}


def stored(result: infcop.Result, name: str) -> dict[str, Tensor]:
    tensors, _ = result._store.read_tensors(getattr(result._store, name))
    return dict(tensors)


def levels(density: float, name: str = "infcop-if-reference-code", **axes: Any) -> dict[str, Any]:
    method = {"name": name, "schedule": {"kind": "fraction", "remove": 0.4}, **axes}
    settings = {"density": density, "method": method, "dense": DENSE, "training": RECIPE}
    return {**settings, "final": {"passes": 0}}


@pytest.mark.parametrize("to", ["warm-up", "epoch", "initialisation"])
def test_the_first_level_starts_from_a_mixture(search: Search, to: str) -> None:
    result = search(**levels(0.6, rewind={"to": to}))
    saved, trained, ticket = (stored(result, name) for name in ("rewind", "dense", "values"))
    assert len(result.record.levels) == 1
    expected = partly_rewound(saved, trained, stored(result, "masks"))
    assert {name for name, value in ticket.items() if torch.equal(value, expected[name])} == {
        *expected
    }
    kept_as_trained = {"1.weight", "1.bias", "1.running_mean", "1.running_var", "0.bias", "7.bias"}
    assert all(not torch.equal(ticket[name], saved[name]) for name in kept_as_trained)


def test_a_later_level_keeps_what_the_level_before_left(search: Search) -> None:
    two = search(**levels(0.36))
    assert len(two.record.levels) == 2
    one = search(**levels(two.record.levels[0].density))
    before = {name: value.detach() for name, value in one.model.state_dict().items()}
    expected = partly_rewound(stored(two, "rewind"), before, stored(two, "masks"))
    ticket = stored(two, "values")
    assert all(torch.equal(ticket[name], expected[name]) for name in expected)


def test_going_back_at_the_end_is_partial_too(search: Search) -> None:
    settings = levels(0.6, rewind={"when": "end"})
    searched = search(**settings)
    result = search(**{**settings, "final": {"passes": 1}})
    before = {name: value.detach() for name, value in searched.model.state_dict().items()}
    expected = partly_rewound(stored(result, "rewind"), before, stored(result, "masks"))
    ticket = stored(result, "values")
    assert all(torch.equal(ticket[name], expected[name]) for name in expected)


def test_norms_are_compared_with_means_of_the_reference(search: Search) -> None:
    record = search(**levels(0.36, name="infcop-gf-reference-code")).record
    assert record.reference is not None
    means = record.reference.flows["gradient.mean"]
    readings = [r for level in record.levels for r in level.readings if r.phase == "level"]
    assert readings
    for reading in readings:
        assert reading.decision is not None
        distance = slow_distance(reading.flows["gradient.norm"], means)
        assert reading.decision.evidence["distance"] == pytest.approx(distance)
        assert reading.decision.stop == (distance < 0.5 or reading.passes == 2)


def test_nothing_else_differs_from_the_methods_they_imitate() -> None:
    for name in ("infcop-if", "infcop-gf"):
        ours = resolve_method(name).model_dump()
        theirs = resolve_method(f"{name}-reference-code").model_dump()
        ours["rewind"]["restores"] = "prunable-weights"
        if name == "infcop-gf":
            ours["stop"]["reference_statistic"] = "mean"
        assert theirs == {**ours, "name": f"{name}-reference-code"}
