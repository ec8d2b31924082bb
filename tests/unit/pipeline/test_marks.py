from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infcop.pipeline.marks import marks
from infcop.training.clock import Clock

steps = st.integers(1, 60)
passes = st.floats(1e-3, 12)


@settings(deadline=None, max_examples=300)
@given(steps, passes, passes, st.lists(st.floats(0, 15), max_size=3))
def test_marks_rise_to_the_end_and_hold_every_place(per_pass, unit, end, also) -> None:
    phase = Clock(steps_per_pass=per_pass)
    found = marks(phase, unit, end, also)
    assert found == sorted(set(found))
    assert found[0] >= 1
    assert found[-1] == phase.steps_at(end)
    count = 1
    while unit * count < end - 1e-6 and count < 500:
        assert phase.steps_at(unit * count) in found
        count += 1
    inside = [place for place in also if 0 < phase.steps_at(place) < found[-1]]
    assert {phase.steps_at(place) for place in inside} <= set(found)
    multiples = {phase.steps_at(max(unit, 1 / per_pass) * k) for k in range(1, 13 * per_pass + 1)}
    assert set(found) <= multiples | set(map(phase.steps_at, [*also, end]))


@pytest.mark.parametrize(
    ("per_pass", "unit", "end", "also", "expected"),
    [
        (10, 1, 3, [], [10, 20, 30]),
        (10, 0.1, 0.3, [], [1, 2, 3]),
        (10, 2, 5, [], [20, 40, 50]),
        (10, 9, 5, [], [50]),
        (10, 5, 5, [5, 50], [50]),
        (10, 2, 5, [1, 2.5, 0, 7], [10, 20, 25, 40, 50]),
        (3, 0.5, 2, [], [2, 3, 5, 6]),
        (7, 1 / 3, 1, [], [3, 5, 7]),
        # more readings than steps: every step once
        (3, 0.01, 1, [], [1, 2, 3]),
        (3, 1e-300, 1, [], [1, 2, 3]),
        # less than one step is one step
        (3, 1, 1e-12, [1e-13], [1]),
        (1, 1, 1, [0.5], [1]),
    ],
)
def test_marks_by_hand(per_pass, unit, end, also, expected) -> None:
    assert marks(Clock(steps_per_pass=per_pass), unit, end, also) == expected


def test_the_beginning_is_no_mark() -> None:
    """A minimum of zero passes is read before any training, not by a mark of its own."""
    assert marks(Clock(steps_per_pass=4), 1, 2, also=[0, 0.0]) == [4, 8]
