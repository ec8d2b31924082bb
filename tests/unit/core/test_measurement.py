from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from infcop.core.measurement import MEASUREMENT_VERSION, MeasurementRecord, Pooling
from tests.reference.measurements import make_edge, make_layer, make_measurement


@pytest.mark.parametrize("selection", ["graph", "main-path", ("fc1", "fc3")])
def test_json_and_back(selection) -> None:
    record = make_measurement(selection=selection, unused=("spare",), warnings=("none",))
    again = MeasurementRecord.model_validate_json(record.model_dump_json())
    assert again == record
    assert again.model_dump_json() == record.model_dump_json()
    assert record.schema_version == MEASUREMENT_VERSION


def test_values_that_are_not_finite_survive() -> None:
    edges = [make_edge(("fc1", "fc2"), math.inf), make_edge(("fc2", "fc3"), math.nan)]
    text = make_measurement(edges=edges).model_dump_json()
    assert '"Infinity"' in text
    again = MeasurementRecord.model_validate_json(text).edges
    assert again[0].signed == math.inf
    assert math.isnan(again[1].signed or 0.0)


def test_records_cannot_be_changed_and_know_their_fields() -> None:
    record = make_measurement()
    with pytest.raises(ValidationError):
        record.examples = 3  # type: ignore[misc]
    with pytest.raises(ValidationError):
        MeasurementRecord.model_validate({**record.model_dump(), "seconds": 1.0})


def test_layers_called_more_than_once_are_found() -> None:
    layers = [make_layer("a"), make_layer("b", calls=2)]
    assert make_measurement((), layers=layers, edges=[]).called_more_than_once == ("b",)


@pytest.mark.parametrize(
    ("pooling", "sentence"),
    [
        (Pooling(), "taken as it is"),
        (Pooling(averaged=(1,)), "averaged over axis 1"),
        (Pooling(averaged=(1, 2, 3)), "averaged over axes 1, 2 and 3"),
        (Pooling(fold=4), "averaged over the 4 parts of each example along axis 0"),
        (
            Pooling(averaged=(0,), examples=1, fold=2),
            "averaged over axis 0 and the 2 parts of each example along axis 1",
        ),
    ],
)
def test_pooling_in_words(pooling: Pooling, sentence: str) -> None:
    assert pooling.sentence == sentence
