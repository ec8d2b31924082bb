from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from infcop.core.records import (
    FLOWS,
    SCHEMA_VERSION,
    Cost,
    LevelRecord,
    Reading,
    RunRecord,
    StopDecision,
    StopReason,
)
from tests.reference.records import make_record

costs = st.builds(
    Cost,
    **{name: st.integers(0, 10**12) for name in Cost.model_fields},
)


def refused_constant(name: str) -> float:
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.parametrize("flow", ["information", "gradient", "both", "none"])
@pytest.mark.parametrize("finished", [True, False])
def test_a_record_survives_json(flow, finished) -> None:
    record = make_record(flow=flow, finished=finished)
    text = record.model_dump_json()
    assert RunRecord.model_validate_json(text) == record
    assert RunRecord.model_validate(json.loads(text, parse_constant=refused_constant)) == record
    assert RunRecord.model_validate(record.model_dump(mode="json")) == record


def test_a_record_in_the_making_survives_json() -> None:
    record = make_record(levels=0, finished=False)
    assert record.levels == ()
    assert record.outcome is None
    assert RunRecord.model_validate_json(record.model_dump_json()) == record


def test_hostile_names_survive_json() -> None:
    record = make_record(hostile=True)
    assert RunRecord.model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize("value", [math.inf, -math.inf, 0.1 + 0.2, 5e-324, 1.7976931348623157e308])
def test_floats_come_back_exactly(value) -> None:
    reading = Reading(
        phase="dense",
        level=0,
        passes=value,
        flows={"information.signed": (value, -0.0)},
        metrics={"loss": value},
        main=value,
        train_loss=value,
        decision=StopDecision(stop=False, reason=StopReason.FLOW, evidence={"distance": value}),
    )
    text = reading.model_dump_json()
    again = Reading.model_validate(json.loads(text, parse_constant=refused_constant))
    assert again == reading
    assert math.copysign(1, again.flows["information.signed"][1]) == -1


def test_nan_comes_back_as_nan() -> None:
    record = make_record(not_finite=True, flow="both")
    text = record.model_dump_json()
    again = RunRecord.model_validate(json.loads(text, parse_constant=refused_constant))
    assert again.model_dump_json() == text
    values = [
        v for level in again.levels for r in level.readings for f in r.flows.values() for v in f
    ]
    assert any(math.isnan(value) for value in values)
    assert any(math.isinf(value) for value in values)


def test_records_are_frozen_and_refuse_unknown_fields() -> None:
    record = make_record()
    with pytest.raises(ValidationError, match="frozen"):
        record.levels = ()
    with pytest.raises(ValidationError, match="Extra inputs"):
        RunRecord.model_validate({**record.model_dump(), "unknown": 1})
    with pytest.raises(ValidationError):
        Reading(phase="dense", level=0, passes=0, flows={"information.singed": (1.0,)})


def test_a_record_carries_its_version() -> None:
    assert make_record().schema_version == SCHEMA_VERSION
    assert json.loads(make_record().model_dump_json())["schema_version"] == SCHEMA_VERSION


@settings(deadline=None, max_examples=50)
@given(costs, costs, costs)
def test_costs_add_up_like_numbers(a, b, c) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Cost() == a
    assert (a + b).forward_equivalents == a.forward_equivalents + b.forward_equivalents
    assert sum([a, b, c], Cost()) == a + b + c


def test_every_kind_of_cost_is_added() -> None:
    one = Cost(**{name: place for place, name in enumerate(Cost.model_fields, start=1)})
    assert (one + one).model_dump() == {name: 2 * v for name, v in one.model_dump().items()}


@pytest.mark.parametrize(
    ("purpose", "price"),
    [("training", 3), ("measuring", 1), ("measuring_gradient", 3), ("evaluating", 1)],
)
def test_the_price_of_an_example(purpose, price) -> None:
    assert Cost(**{purpose: 7}).forward_equivalents == 7 * price


def test_every_reason_has_its_own_sentence() -> None:
    sentences = [reason.sentence for reason in StopReason]
    assert len(set(sentences)) == len(StopReason)
    assert all(sentence and not sentence.endswith(".") for sentence in sentences)


def test_the_passes_of_a_level_are_those_of_its_last_reading() -> None:
    level = LevelRecord(
        level=1, kept=1, density=1.0, kept_per_layer={}, removed=0, rewound_to="none"
    )
    assert level.passes == 0.0
    readings = tuple(Reading(phase="level", level=1, passes=p) for p in (0.0, 0.5, 1.25))
    assert level.model_copy(update={"readings": readings}).passes == 1.25


def test_examples_become_passes_over_the_training_split() -> None:
    record = make_record()
    assert record.passes(0) == 0
    assert record.passes(record.data.train) == 1
    assert record.passes(3 * record.data.train) == 3


def test_the_made_up_record_is_one_that_a_run_could_write() -> None:
    record = make_record()
    assert all(a.kept > b.kept for a, b in pairwise(record.levels))
    assert set(FLOWS) >= {
        name for level in record.levels for r in level.readings for name in r.flows
    }
