from __future__ import annotations

import pytest

from infcop.core.method import Fraction, MethodConfig, Plateau
from infcop.errors import ConfigError
from infcop.methods import METHODS, resolve_method

every_method = pytest.mark.parametrize("name", METHODS)
KNOWN = "known: " + ", ".join(sorted(METHODS))


@every_method
def test_a_method_bears_its_name_and_a_summary_of_one_line(name) -> None:
    assert resolve_method(name).name == name
    summary = METHODS[name].summary
    assert summary
    assert "\n" not in summary
    assert not summary.endswith(".")


@every_method
def test_a_method_survives_json_and_resolves_to_itself(name) -> None:
    method = resolve_method(name)
    assert MethodConfig.model_validate_json(method.model_dump_json()) == method
    assert resolve_method(method) is method
    assert resolve_method(method.model_dump(mode="json")) == method
    assert resolve_method({"name": name}) == method


@every_method
def test_methods_are_built_anew(name) -> None:
    assert METHODS[name].build() == METHODS[name].build()


def test_names_are_listed_in_order() -> None:
    assert list(METHODS) == sorted(METHODS)


def test_information_consistent_pruning_is_sap_with_another_stop_rule() -> None:
    sap = resolve_method("sap").model_dump(exclude={"name", "stop", "flow"})
    for name in ("infcop-if", "infcop-gf"):
        assert resolve_method(name).model_dump(exclude={"name", "stop", "flow"}) == sap


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        # the settings of the published runs, one by one
        ("lth", {"scope": "layerwise", "schedule.remove": 0.2, "rewind.to": "initialisation"}),
        ("sap", {"scope": "global", "schedule.p": 0.5, "schedule.q": 1.0, "schedule.eta": 0.0}),
        ("sap", {"schedule.gamma": 1.0, "schedule.beta": 0.9, "rewind.to": "warm-up"}),
        ("infcop-if", {"stop.epsilon": 0.11, "stop.statistic": "signed", "reference": "warm-up"}),
        ("infcop-gf", {"stop.epsilon": 0.5, "stop.statistic": "norm", "reference": "warm-up"}),
        ("infcop-gf", {"flow.gradient": "per-batch"}),
        # what is imitated of the public code
        ("infcop-if-reference-code", {"rewind.restores": "prunable-weights"}),
        ("infcop-gf-reference-code", {"rewind.restores": "prunable-weights"}),
        ("infcop-gf-reference-code", {"stop.statistic": "norm"}),
        ("infcop-gf-reference-code", {"stop.reference_statistic": "mean"}),
        ("lth-rewind", {"schedule.remove": 0.2, "rewind.to": "epoch", "stop.passes": None}),
        ("lr-rewind", {"schedule.remove": 0.2, "rewind.to": "learning-rate"}),
        ("lr-rewind", {"rate.kind": "restart", "stop.passes": None}),
        ("lr-rewind-one-shot", {"schedule.kind": "one-shot", "rate.kind": "restart"}),
        ("fine-tune", {"rate.kind": "schedule", "rewind.to": "none", "stop.passes": 1.0}),
        ("bimp", {"rate.kind": "linear", "rate.start": "adaptive", "rate.warmup": 0.1}),
        ("gmp", {"schedule.kind": "cubic", "rate.kind": "one-run", "rewind.to": "none"}),
        ("one-shot", {"schedule.kind": "one-shot", "rewind.to": "none", "stop.passes": 0}),
        ("early-bird", {"start.kind": "early-bird", "start.distance": 0.1, "start.window": 5}),
        ("snip", {"start.kind": "initialisation", "score.kind": "snip", "rounds": 1}),
        ("grasp", {"start.kind": "initialisation", "score.temperature": 200.0, "rounds": 1}),
        ("synflow", {"score.kind": "synflow", "rounds": 100, "spacing": "exponential"}),
        ("random", {"start.kind": "initialisation", "score.kind": "random", "scope": "uniform"}),
        ("rigl", {"scope": "erk", "regrow.by": "gradient", "regrow.decay": "cosine"}),
        ("rigl", {"regrow.fraction": 0.3, "regrow.until": 0.75}),
        ("set", {"regrow.by": "random", "regrow.every": 1.0, "regrow.fraction": 0.3}),
        ("movement", {"score.kind": "movement", "schedule.kind": "cubic"}),
    ],
)
def test_settings_are_the_published_ones(name, settings) -> None:
    for path, value in settings.items():
        found: object = resolve_method(name)
        for part in path.split("."):
            found = getattr(found, part)
        assert found == value, path


OTHERS = {"early-bird", "grasp", "movement", "random", "rigl", "set", "snip", "synflow"}
"""They choose other weights, or begin elsewhere: that is what they are for."""

PUBLISHED = {name for name in METHODS if name in ("lth", "sap") or name.startswith("infcop-")}


@pytest.mark.parametrize("name", sorted({*METHODS} - PUBLISHED - OTHERS))
def test_rivals_differ_only_in_how_much_goes_when_and_how_they_retrain(name) -> None:
    """So that a comparison tells what the retraining does, and not the choice of weights."""
    retraining = {"name", "schedule", "rewind", "rate", "stop"}
    plain = MethodConfig(name="plain", score="magnitude", scope="global", keep_per_layer=0)
    assert resolve_method(name).model_dump(exclude=retraining) == plain.model_dump(
        exclude=retraining
    )


def test_one_shot_rewinding_is_the_iterative_one_in_one_level() -> None:
    iterative = resolve_method("lr-rewind").model_dump(exclude={"name", "schedule"})
    assert resolve_method("lr-rewind-one-shot").model_dump(exclude={"name", "schedule"}) == (
        iterative
    )


def test_axes_can_be_changed_one_by_one() -> None:
    method = resolve_method(
        {"name": "infcop-if", "schedule": {"kind": "fraction"}, "stop": {"epsilon": 0.5}}
    )
    assert method.schedule == Fraction()
    assert method.stop.epsilon == 0.5
    assert method.stop.rule == "information-flow"
    assert resolve_method({"name": "lth", "stop": {"rule": "plateau"}}).stop == Plateau()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("lht", f"method: got 'lht'; did you mean 'lth'? {KNOWN}"),
        ("LTH", f"method: got 'LTH'; did you mean 'lth'? {KNOWN}"),
        ("", f"method: got ''; {KNOWN}"),
        ({}, f"method: got None; {KNOWN}"),
        ({"name": ["lth"]}, "method: got ['lth']; "),
        ({"name": 3}, f"method: got 3; {KNOWN}"),
        (
            None,
            "method: expected a name, or a mapping with a name and the axes to change, got None",
        ),
        (3, "method: expected a name, or a mapping"),
        (["lth"], "method: expected a name, or a mapping"),
        ({"name": "lth", "scop": "global"}, "method.scop: unknown setting; did you mean 'scope'?"),
        (
            {"name": "sap", "scope": "layerwise"},
            "method: schedule 'sap' counts over all layers together",
        ),
    ],
)
def test_a_wrong_method_is_explained(method, message) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_method(method)
    assert str(caught.value).startswith(message)
