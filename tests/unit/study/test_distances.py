from __future__ import annotations

import math
from typing import Any

import pytest

from infcop.core.records import LevelRecord
from infcop.core.replay import Correlation, Replay
from infcop.study.distances import CLOCK, LOSS, MASK
from infcop.study.replay import replay
from tests.reference.replays import away, full_record, level_of

RISES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9]


def replayed(*levels: LevelRecord, **settings: Any) -> Replay:
    return replay({"a": full_record(*levels, **settings)}, {"a": {"stop": {"rule": "plateau"}}})


def found(replayed: Replay) -> dict[str, Correlation]:
    return {one.name: one for one in replayed.correlations}


def with_distances(level: LevelRecord, distances: list[float | None]) -> LevelRecord:
    """Return a level with other distances from the trained network."""
    trained = [
        reading.model_copy(
            update={"comparisons": {} if value is None else {"trained": away(value)}}
        )
        for reading, value in zip(level.readings[1:], distances, strict=True)
    ]
    return level.model_copy(update={"readings": (level.readings[0], *trained)})


def test_a_distance_that_falls_as_the_metric_rises_has_one() -> None:
    told = found(replayed(level_of(1, RISES)))
    for name in ("frobenius to trained", "information.signed to dense", CLOCK, LOSS):
        assert told[name].mean == 1, name
        assert told[name].levels == 1
    rising = found(replayed(level_of(1, RISES, distances=RISES)))["frobenius to trained"]
    assert (rising.mean, rising.lowest) == (-1, -1)


@pytest.mark.parametrize(("higher_is_better", "mean"), [(True, -1), (False, 1)])
def test_a_lower_metric_may_be_the_better_one(higher_is_better: bool, mean: float) -> None:
    level = level_of(1, RISES[::-1], distances=RISES[::-1])
    told = found(replayed(level, metric="loss", higher_is_better=higher_is_better))
    assert told["frobenius to trained"].mean == mean


def test_levels_are_averaged() -> None:
    told = found(replayed(level_of(1, RISES), level_of(2, RISES, distances=RISES)))
    one = told["frobenius to trained"]
    assert (one.mean, one.lowest, one.levels) == (0, -1, 2)


def test_what_says_nothing_is_left_out_and_counted() -> None:
    level = level_of(2, RISES, distances=[0.5] * 8)
    short = with_distances(level_of(3, RISES), [0.1, 0.2, None, None, None, None, None, None])
    one = found(replayed(level_of(1, RISES), level, short))["frobenius to trained"]
    assert (one.mean, one.levels, one.constant, one.short) == (1, 1, 1, 1)
    still = found(replayed(level_of(1, [0.5] * 8)))
    assert {one.mean for one in still.values()} == {None}
    assert still[CLOCK].constant == 1


def test_what_is_not_finite_is_left_out_and_counted() -> None:
    level = with_distances(level_of(1, RISES), [math.nan, 0.7, math.inf, 0.5, 0.4, 0.3, 0.2, 0.1])
    one = found(replayed(level))["frobenius to trained"]
    assert (one.mean, one.not_finite) == (1, 2)


def test_the_mask_has_no_change_at_first() -> None:
    assert found(replayed(level_of(1, RISES)))[MASK].mean == 1


def test_what_was_not_measured_is_not_named() -> None:
    names = set(found(replayed(level_of(1, RISES))))
    assert "cosine to trained" in names
    assert not {name for name in names if "alive" in name or "cka" in name or " last" in name}


def test_the_warm_up_is_named_where_it_is_another_state() -> None:
    assert "information.signed to warm-up" not in found(replayed(level_of(1, RISES)))
    apart = replayed(level_of(1, RISES), settings={"dense": {"passes": 4, "warmup_passes": 2}})
    assert {"information.signed to warm-up", "information.signed to dense"} <= set(found(apart))


def test_the_best_come_first() -> None:
    means = [one.mean for one in replayed(level_of(1, RISES)).correlations]
    known = [mean for mean in means if mean is not None]
    assert known == sorted(known, reverse=True)
    assert means == known + [None] * (len(means) - len(known))


def test_curves_show_a_few_levels_and_distances() -> None:
    levels = [level_of(number, RISES) for number in range(1, 12)]
    curves = replayed(*levels).curves
    assert [one.level for one in curves] == [1, 3, 5, 7, 9, 11]
    assert list(curves[0].distances) == [
        *("frobenius to trained", "information.signed to trained"),
        *("information.signed to dense", MASK),
    ]
    assert curves[0].distances[MASK][0] is None
    assert curves[0].deficit[-1] == pytest.approx(-0.1)
    assert len(curves[0].passes) == 8
    assert [one.level for one in replayed(level_of(1, RISES)).curves] == [1]
