from __future__ import annotations

from typing import Any, get_args

import pytest

from infcop.core.config import SearchConfig
from infcop.core.method import MethodConfig
from infcop.core.rate import LinearRate, Rate, RestartRate, ScheduleRate
from infcop.core.validation import validated
from infcop.errors import ConfigError

KINDS = [cls.model_fields["kind"].default for cls in get_args(get_args(Rate)[0])]

ONE_RUN: dict[str, Any] = {
    "name": "mine",
    "rewind": {"to": "none"},
    "rate": {"kind": "one-run"},
    "schedule": {"kind": "cubic"},
}


def method(**axes: Any) -> MethodConfig:
    return validated(MethodConfig, {"name": "mine", **axes}, at="method")


def config(**settings: Any) -> SearchConfig:
    return validated(SearchConfig, {"method": ONE_RUN, **settings})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_defaults_that_can_be_used(kind: str) -> None:
    chosen = method(rate={"kind": kind}, rewind={"to": "none"})
    assert chosen.rate.kind == kind
    assert MethodConfig.model_validate_json(chosen.model_dump_json()) == chosen


def test_levels_follow_the_dense_schedule_unless_told() -> None:
    assert method().rate == ScheduleRate()


@pytest.mark.parametrize("rewind", ["initialisation", "epoch", "warm-up", "learning-rate", "none"])
@pytest.mark.parametrize("rate", [ScheduleRate(), RestartRate(schedule="cosine")])
def test_a_schedule_goes_with_every_rewind(rate: Rate, rewind: str) -> None:
    assert method(rate=rate.model_dump(), rewind={"to": rewind}).rate == rate


def test_a_line_from_the_peak_goes_with_rewound_weights() -> None:
    assert method(rate={"kind": "linear", "start": "peak"}).rate == LinearRate(start="peak")


def test_an_adaptive_line_goes_with_weights_that_only_the_final_training_rewinds() -> None:
    chosen = method(rate={"kind": "linear"}, rewind={"to": "epoch", "when": "end"})
    assert chosen.rate == LinearRate()


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (
            {"rewind": {"to": "learning-rate"}, "rate": {"kind": "constant"}},
            "method: rewind.to 'learning-rate' starts a schedule over: it needs the rate "
            "'schedule' or 'restart', got 'constant'; set rewind.to to 'none'",
        ),
        (
            {"rewind": {"to": "learning-rate"}, "rate": {"kind": "linear", "start": "peak"}},
            "it needs the rate 'schedule' or 'restart', got 'linear'",
        ),
        (
            {"rewind": {"to": "epoch"}, "rate": {"kind": "linear"}},
            "with start 'adaptive' it needs rewind.to 'none', got 'epoch'; set rate.start to",
        ),
        ({**ONE_RUN, "stop": {"rule": "plateau"}}, "stop.rule 'fixed-budget', got 'plateau'"),
        ({**ONE_RUN, "schedule": {"kind": "sap"}}, "such as 'cubic', got 'sap'"),
        ({**ONE_RUN, "rewind": {"to": "warm-up"}}, "it needs rewind.to 'none', got 'warm-up'"),
        (
            {**ONE_RUN, "rewind": {"to": "epoch", "when": "end"}},
            "it needs rewind.to 'none', got 'epoch'",
        ),
        ({"rate": {"kind": "constant", "fraction": 0}}, "method.rate.fraction: got 0; "),
        ({"rate": {"kind": "constant", "fraction": 1.1}}, "method.rate.fraction: got 1.1; "),
        ({"rate": {"kind": "linear", "warmup": 1}}, "method.rate.warmup: got 1; "),
        ({"rate": {"kind": "linear", "start": "zero"}}, "method.rate.start: got 'zero'; "),
        ({"rate": {"kind": "restart", "schedule": "cos"}}, "did you mean 'cosine'?"),
        ({"rate": {"kind": "liner"}}, "method.rate: got 'liner'; did you mean 'linear'?"),
        ({"rate": {"kind": "linear", "fraction": 1}}, "method.rate.fraction: unknown setting"),
        ({"schedule": {"kind": "cubic", "levels": 0}}, "method.schedule.levels: got 0; "),
        ({"schedule": {"kind": "cube"}}, "method.schedule: got 'cube'; did you mean 'cubic'?"),
    ],
)
def test_a_meaningless_choice_is_refused(axes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        method(**axes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"milestones": (0.5,)}, "rate 'one-run' comes down at the end of the whole search"),
        (
            {"milestones": (0.5,), "method": {"name": "m", "schedule": {"kind": "one-shot"}}},
            "schedule 'one-shot' goes to the density in one level",
        ),
        (
            {"levels": {"max_levels": 19}},
            "method.schedule.levels (20) must not exceed levels.max_levels (19)",
        ),
    ],
)
def test_a_search_that_can_not_end_well_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**settings)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("stop", "levels", "passes"),
    [
        ({"rule": "fixed-budget"}, {"max_passes": 6}, 6),
        ({"rule": "fixed-budget", "passes": 2}, {"max_passes": 6}, 2),
        ({"rule": "fixed-budget", "passes": 9}, {"max_passes": 6}, 6),
        ({"rule": "fixed-budget", "passes": 0.5}, {"max_passes": 6, "min_passes": 1}, 1),
        ({"rule": "fixed-budget", "passes": 0.5}, {"max_passes": 6, "min_passes": 0}, 0.5),
        ({"rule": "plateau"}, {"max_passes": 6}, 6),
    ],
)
def test_the_budget_of_a_level(stop: dict[str, Any], levels: dict[str, Any], passes: float) -> None:
    assert config(method={"name": "m", "stop": stop}, levels=levels).level_passes == passes
