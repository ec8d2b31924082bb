from __future__ import annotations

from typing import Any

import pytest

from infcop.core.compare import CompareConfig, StudyMethod, StudySetting
from infcop.errors import ConfigError
from infcop.study.configure import resolve_comparison
from tests.reference.studies import comparison

LTH = {"method": {"name": "lth"}}
TARGET = {"equal_cost_to": "lth"}


def methods(**entries: Any) -> dict[str, Any]:
    return {"methods": {"lth": LTH, **entries}}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "own recipe": (
        methods(own={**LTH, "training": {"lr": 0.1}}),
        r"methods\.own: methods must share one recipe, but this one has its own training\. Put it",
    ),
    "own seed and density": (
        methods(own={**LTH, "seed": 1, "density": 0.1}),
        r"methods\.own: methods must share one recipe, but .* its own density and seed",
    ),
    **{
        f"own {key}": (methods(own={**LTH, key: 1}), "methods must share one recipe")
        for key in ("data", "model", "dense", "final", "probe_examples", "milestones", "execution")
    },
    "unknown key": (methods(own={**LTH, "rewind": 1}), r"methods\.own\.rewind: unknown setting"),
    "unknown level key": (
        methods(own={**LTH, "levels": {"units": 1}}),
        r"methods\.own\.levels\.units: unknown setting; did you mean 'unit'\?",
    ),
    "unknown method": (
        methods(own={"method": "lht"}),
        r"^methods\.own\.method: got 'lht'; did you mean 'lth'\?",
    ),
    "axis out of range": (
        methods(own={"method": {"name": "lth", "schedule": {"remove": 2}}}),
        r"^methods\.own\.method\.schedule\.remove: got 2",
    ),
    "no method named": (methods(own={}), r"methods\.own\.method: a value is required"),
    "no methods": ({"methods": {}}, r"methods: expected at least one, got none"),
    "no settings": ({"settings": {}}, r"settings: expected at least one, got none"),
    "unknown baseline": ({"baseline": "lht"}, r"baseline: got 'lht'; did you mean 'lth'\?"),
    "unknown target": (
        methods(own={**LTH, "equal_cost_to": "lht"}),
        r"methods\.own\.equal_cost_to: got 'lht', expected another method; did you mean 'lth'\?",
    ),
    "itself as target": (
        methods(own={**LTH, "equal_cost_to": "own"}),
        r"methods\.own\.equal_cost_to: got 'own', expected another method",
    ),
    "target of a target": (
        methods(one={**LTH, **TARGET}, two={**LTH, "equal_cost_to": "one"}),
        r"methods\.two\.equal_cost_to: got 'one', which has equal_cost_to itself; .*'lth'",
    ),
    "levels with a target": (
        methods(own={**LTH, **TARGET, "levels": {"max_passes": 2}}),
        r"methods\.own: levels\.max_passes has no effect with equal_cost_to",
    ),
    "adaptive schedule with a target": (
        methods(own={"method": "sap", **TARGET}),
        r"methods\.own: equal_cost_to needs a schedule whose number of levels .* got 'sap'",
    ),
    "seeds twice": ({"seeds": [0, 1, 0]}, r"seeds: expected different seeds, got 0 more than once"),
    "no seeds": ({"seeds": []}, r"seeds: expected at least one seed"),
    "densities rise": (
        {"densities": [0.05, 0.2]},
        r"densities: expected densities that fall from below 1, got 0\.05, 0\.2; sort them",
    ),
    "dense": ({"densities": [1.0, 0.2]}, r"densities: expected densities that fall from below 1"),
    "no densities": ({"densities": []}, r"densities: expected at least one density"),
    "percent": ({"densities": [20]}, r"densities\.0: got 20; expected less than or equal to 1"),
    "label": (
        {"settings": {"my digits": {}}},
        r"settings: got the label 'my digits'; expected letters, digits and",
    ),
    "key of a setting": (
        {"settings": {"digits": {"training": {"lrr": 0.1}}}},
        r"settings\.digits\.training\.lrr: unknown setting; did you mean 'lr'\?",
    ),
    "value of a setting": (
        {"settings": {"digits": {"dense": {"passes": 0}}}},
        r"settings\.digits\.dense\.passes: got 0",
    ),
    "seed in a setting": (
        {"settings": {"digits": {"seed": 1}}},
        r"settings\.digits\.seed: unknown setting",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_unfair_or_unknown_is_refused(case: str) -> None:
    changes, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        resolve_comparison(comparison(**changes))


def test_a_comparison_survives_a_round_trip() -> None:
    config = resolve_comparison(comparison())
    assert CompareConfig.model_validate_json(config.model_dump_json()) == config


def test_runs_take_one_thread_unless_they_are_told() -> None:
    for given, threads in (({}, 1), ({"execution": {"device": "cpu"}}, 1)):
        assert StudySetting.model_validate(given).execution.threads == threads
    assert StudySetting.model_validate({"execution": {"threads": 2}}).execution.threads == 2


def test_some_methods_have_a_run_for_each_density() -> None:
    config = resolve_comparison(
        comparison(
            **methods(
                fixed={**LTH, **TARGET},
                apart={**LTH, "per_density": True},
                shot={"method": "lr-rewind-one-shot"},
                gmp={"method": "gmp"},
            )
        )
    )
    splits = {label: method.splits for label, method in config.methods.items()}
    assert splits == {"lth": False, "fixed": True, "apart": True, "shot": True, "gmp": True}


def test_how_levels_are_evaluated_may_differ_with_a_target() -> None:
    entry = {"method": resolve_comparison(comparison()).methods["lth"].method, **TARGET}
    assert StudyMethod.model_validate({**entry, "levels": {"evaluate": "ends"}}).splits
