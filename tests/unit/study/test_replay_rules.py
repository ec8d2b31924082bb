from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import pytest

from infcop.core.method import MethodConfig, StopConfig, rule_parts
from infcop.core.replay import ReplayRule
from infcop.errors import ConfigError
from infcop.study.replay_rules import catalogue, rules_of

FIXED: dict[str, Any] = {"stop": {"rule": "fixed-budget", "passes": 2}}


def test_rules_come_from_a_file_or_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(
        "two: {stop: {rule: fixed-budget, passes: 2}}\n"
        "7: {stop: {rule: information-flow, epsilon: 0.1}, reference: pruned, min_passes: 0.5}\n"
    )
    found = rules_of(path)
    assert list(found) == ["two", "7"]
    assert found["two"] == rules_of({"two": FIXED})["two"]
    assert (found["7"].reference, found["7"].min_passes) == ("pruned", 0.5)
    assert rules_of(found) == found


def test_references_are_those_of_a_method() -> None:
    own = typing.get_args(ReplayRule.model_fields["reference"].annotation)[0]
    assert own == MethodConfig.model_fields["reference"].annotation


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"stop": {"rule": "matrx-flow"}},
            r"a\.stop: got 'matrx-flow'; did you mean 'matrix-flow'",
        ),
        ({**FIXED, "reference": "prune"}, r"a\.reference: got 'prune'; did you mean 'pruned'"),
        (
            {"stop": {"rule": "matrix-flow", "kappa": 1, "reference": "traned"}},
            r"a\.stop\.reference: got 'traned'; did you mean 'trained'",
        ),
        (
            {"stop": {"rule": "information-flow", "epsilon": -0.1}},
            r"a\.stop\.epsilon: got -0\.1; expected greater than 0",
        ),
        (
            {"stop": {"rule": "settling", "fraction": 1.5}},
            r"a\.stop\.fraction: got 1\.5; expected less than 1",
        ),
        ({**FIXED, "min_passes": -1}, r"a\.min_passes: got -1"),
        ({"stop": {"rule": "matrix-flow"}}, r"a\.stop: expected either epsilon.* got neither"),
        (
            {"stop": {"rule": "all-of", "rules": [{"rule": "mask-distance", "epsilon": 3}]}},
            r"a\.stop\.rules\.0\.epsilon: got 3; expected less than or equal to 2",
        ),
        ({"rule": "plateau"}, r"a\.stop: a value is required.*\n?.*a\.rule: unknown setting"),
        ("plateau", "a: expected a mapping with the key stop, got str"),
    ],
)
def test_a_wrong_rule_is_named_with_the_remedy(entry: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rules_of({"good": FIXED, "a": entry})


def test_the_file_is_named_too(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    with pytest.raises(ConfigError, match=r"rules\.yaml': there is no such file"):
        rules_of(path)
    path.write_text("")
    with pytest.raises(ConfigError, match=r"rules\.yaml': expected at least one rule, got none"):
        rules_of(path)
    path.write_text("a: {stop: {rule: plato}}")
    with pytest.raises(ConfigError, match=r"rules\.yaml': a\.stop: got 'plato'; did you mean"):
        rules_of(path)


@pytest.mark.parametrize("warmed_apart", [False, True])
def test_the_catalogue_holds_every_criterion(warmed_apart: bool) -> None:
    rules = catalogue(budget=8, unit=1, share=True, warmed_apart=warmed_apart)
    parts = {part.rule for rule in rules.values() for part in rule_parts(rule.stop)}
    known = {
        cls.model_fields["rule"].default for cls in typing.get_args(typing.get_args(StopConfig)[0])
    }
    # Minimum and maximum are given otherwise, and any of several is seldom of use.
    assert parts == known - {"at-least", "at-most", "any-of"}
    assert any("warm-up" in label for label in rules) == warmed_apart
    assert len({rule.model_dump_json() for rule in rules.values()}) == len(rules)


@pytest.mark.parametrize("budget", [0.5, 3, 40])
@pytest.mark.parametrize("unit", [0.1, 1])
def test_the_catalogue_asks_for_what_the_records_hold(budget: float, unit: float) -> None:
    rules = catalogue(budget=budget, unit=unit, share=False, warmed_apart=False)
    fixed = [rule.stop.passes for label, rule in rules.items() if label.startswith("fixed ")]
    assert fixed == sorted(fixed)
    assert fixed[-1] == budget
    assert all(passes >= min(unit, budget) for passes in fixed)
    assert all((rule.min_passes or 0) <= budget for rule in rules.values())
    assert "accuracy target - 0.01" not in rules
