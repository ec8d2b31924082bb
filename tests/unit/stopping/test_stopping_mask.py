from __future__ import annotations

import math

import pytest

from infcop.core.records import Reading, StopReason
from infcop.errors import ConfigError
from infcop.stopping.mask import MaskRule
from infcop.stopping.rule import StopContext, replay


def decide(rule, *changes):
    readings = [
        Reading(phase="level", level=1, passes=p, mask_change=change)
        for p, change in enumerate(changes, 1)
    ]
    return replay(rule, StopContext(max_passes=8), readings)


def stops(rule, *changes):
    return [decision.stop for decision in decide(rule, *changes)]


def test_a_change_equal_to_epsilon_goes_on_and_just_below_it_stops() -> None:
    assert stops(MaskRule(0.1), None, 0.1, math.nextafter(0.1, 0)) == [False, False, True]
    decision = decide(MaskRule(0.1), 0.05)[0]
    assert decision.reason is StopReason.MASK
    assert decision.evidence == {"mask_change": 0.05, "threshold": 0.1}


def test_readings_must_lie_below_in_a_row() -> None:
    assert stops(MaskRule(0.1, 2), 0.0, 0.2, 0.0, 0.0, 0.0) == [False] * 3 + [True, True]
    # Without a mask to compare with the count begins anew.
    assert stops(MaskRule(0.1, 2), 0.0, None, 0.0, 0.0) == [False] * 3 + [True]


def test_no_mask_is_no_reason() -> None:
    (decision,) = decide(MaskRule(), None)
    assert (decision.stop, decision.reason) == (False, StopReason.NOT_YET)
    assert decision.evidence == {}


@pytest.mark.parametrize(
    "settings", [{"epsilon": 0}, {"epsilon": 2.1}, {"epsilon": math.nan}, {"readings": 0}]
)
def test_settings_out_of_range_are_refused(settings) -> None:
    with pytest.raises(ConfigError, match=r"MaskRule: expected an epsilon in \(0, 2\]"):
        MaskRule(**settings)
    assert MaskRule(epsilon=2.0).epsilon == 2.0
