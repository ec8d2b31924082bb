"""What a stop rule needs to have measured, and rules that could never decide."""

from __future__ import annotations

from typing import Any

import pytest

from infcop.core.comparison import ANCHORS
from infcop.errors import ConfigError, FlowError
from infcop.pipeline.context import Run
from infcop.pipeline.marks import dense_marks, dense_reads
from infcop.pipeline.wanted import wants_halves
from infcop.tasks.classification import Classification
from infcop.training.clock import Clock
from tests.reference.training import batches
from tests.unit.pipeline.test_setup import prepared, single_layer

KAPPA: dict[str, Any] = {"rule": "matrix-flow", "kappa": 1}
HALVES = {**KAPPA, "floor": "halves"}
EPSILON: dict[str, Any] = {"rule": "matrix-flow", "epsilon": 0.4}
SHOCK: dict[str, Any] = {"rule": "shock-budget"}


def run_with(
    stop: dict[str, Any],
    *,
    reference: str = "dense",
    flow: dict[str, Any] | None = None,
    dense: dict[str, Any] | None = None,
    **settings: Any,
) -> Run:
    method = {"name": "lth", "stop": stop, "reference": reference, "flow": flow or {}}
    task = Classification(batches(), batches())
    return prepared(task, method=method, dense=dense or {"passes": 5}, **settings)


@pytest.mark.parametrize(
    ("stop", "settings", "message"),
    [
        (
            KAPPA,
            {"dense": {"passes": 2}},
            "the noise floor needs at least 3 readings of the dense network, one per pass, got "
            "dense.passes 2; train it for at least 3 passes, or give epsilon",
        ),
        (
            {"rule": "at-most", "passes": 2, "of": {**KAPPA, "floor": "larger"}},
            {"dense": {"passes": 1}},
            "at least 3 readings of the dense network, one per pass, got dense.passes 1",
        ),
        (
            HALVES,
            {"probe_examples": 5},
            "expected a probe of at least two batches, to be halved, got one; raise "
            "probe_examples, lower the batch size, or choose the floor 'drift'",
        ),
        (
            {**KAPPA, "floor": "larger"},
            {"flow": {"source": "training"}},
            "the halves of a probe need method.flow.source 'probe', got 'training'",
        ),
        (
            SHOCK,
            {"levels": {"min_passes": 0.5}},
            "'shock-budget' decides at the reading right after pruning, so it needs "
            "method.flow.source 'probe' and levels.min_passes 0, got 'probe' and 0.5",
        ),
        (
            {"rule": "any-of", "rules": [{"rule": "plateau"}, SHOCK]},
            {"flow": {"source": "training"}},
            "method.flow.source 'probe' and levels.min_passes 0, got 'training' and 0",
        ),
        (
            {**EPSILON, "reference": "pruned"},
            {"flow": {"source": "training"}},
            "the reference 'pruned' is read without training",
        ),
        (
            {"rule": "information-flow", "epsilon": 1},
            {"flow": {"source": "training"}, "reference": "pruned"},
            "the reference 'pruned' is read without training",
        ),
    ],
)
def test_a_rule_that_could_never_decide_is_refused_before_any_training(
    stop: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        run_with(stop, **settings)
    assert message in str(caught.value)


def test_what_is_just_enough_is_accepted() -> None:
    assert run_with(KAPPA, dense={"passes": 3}).config.dense.passes == 3
    assert len(run_with(HALVES, probe_examples=6, dense={"passes": 1}).probe) == 2
    assert run_with(EPSILON, dense={"passes": 1}).config.min_passes == 0
    assert run_with({**EPSILON, "reference": "trained"}, flow={"source": "training"}).window > 0
    # A rule that compares no vectors does not care which of them would be the reference.
    assert run_with(EPSILON, reference="pruned", flow={"source": "training"}).window > 0


def test_matrices_need_an_edge() -> None:
    for stop in (EPSILON, SHOCK, {"rule": "settling"}):
        task = Classification(batches(), batches())
        with pytest.raises(FlowError, match="no edge to measure flow on"):
            prepared(task, single_layer(), method={"name": "lth", "stop": stop})


@pytest.mark.parametrize(
    ("stop", "settings", "passes"),
    [
        ({"rule": "fixed-budget"}, {}, {5}),
        ({"rule": "fixed-budget"}, {"reference": "warm-up"}, {2, 5}),
        (EPSILON, {}, {5}),
        ({**EPSILON, "reference": "warm-up"}, {}, {2, 5}),
        (HALVES, {}, {5}),
        (KAPPA, {}, {1, 2, 3, 4, 5}),
        # Two changes between three readings.
        ({**KAPPA, "floor_readings": 2}, {}, {3, 4, 5}),
        ({**KAPPA, "floor_readings": 9}, {}, {1, 2, 3, 4, 5}),
        ({"rule": "fixed-budget"}, {"flow": {"every_reading": True}}, {1, 2, 3, 4, 5}),
    ],
)
def test_flow_of_the_dense_network_is_read_where_something_needs_it(
    stop: dict[str, Any], settings: dict[str, Any], passes: set[int]
) -> None:
    run = run_with(stop, dense={"passes": 5, "warmup_passes": 2}, **settings)
    clock = Clock(len(batches()))
    assert dense_reads(run, clock) == {clock.steps_at(place) for place in passes}


@pytest.mark.parametrize(
    "settings",
    [
        {"stop": {"rule": "fixed-budget"}},
        {"stop": {"rule": "fixed-budget"}, "levels": {"unit": 0.3, "max_passes": 2}},
        {"stop": KAPPA, "levels": {"unit": 2.5}, "reference": "warm-up"},
    ],
)
def test_the_dense_training_is_interrupted_at_every_pass_whatever_the_method(
    settings: dict[str, Any],
) -> None:
    """Its draws depend on these places, and methods share it."""
    clock = Clock(len(batches()))
    assert dense_marks(run_with(**settings), clock) == [5, 10, 15, 20, 25]


@pytest.mark.parametrize(
    ("stop", "flow", "wanted", "halves"),
    [
        ({"rule": "fixed-budget"}, {}, set(), False),
        ({"rule": "information-flow", "epsilon": 1}, {}, set(), False),
        (SHOCK, {}, {("trained", "all")}, False),
        (KAPPA, {}, {("trained", "all"), ("last", "all")}, False),
        (HALVES, {}, {("trained", "all")}, True),
        (
            {**KAPPA, "floor": "larger", "units": "alive", "reference": "dense"},
            {},
            {("trained", "alive"), ("dense", "alive"), ("last", "alive")},
            True,
        ),
        (
            {"rule": "fixed-budget"},
            {"every_reading": True},
            {(anchor, units) for anchor in ANCHORS for units in ("all", "alive")},
            True,
        ),
        (
            {"rule": "fixed-budget"},
            {"every_reading": True, "source": "training"},
            {(anchor, units) for anchor in ANCHORS for units in ("all", "alive")},
            False,
        ),
    ],
)
def test_states_are_compared_for_rules_that_look_at_them_or_for_a_study(
    stop: dict[str, Any], flow: dict[str, Any], wanted: set[tuple[str, str]], halves: bool
) -> None:
    run = run_with(stop, flow=flow)
    assert set(run.states.wanted) == wanted
    assert wants_halves(run) == halves


def test_a_study_of_a_model_without_edges_compares_nothing() -> None:
    method = {"name": "lth", "flow": {"every_reading": True}}
    run = prepared(Classification(batches(), batches()), single_layer(), method=method)
    assert run.states.wanted == ()
    assert not wants_halves(run)
