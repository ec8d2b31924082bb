from __future__ import annotations

import math

import pytest

from infcop.core.config import RunConfig
from infcop.core.method import MethodConfig
from infcop.core.names import did_you_mean
from infcop.core.validation import merged, validated
from infcop.errors import ConfigError

FULL = (
    "known: data, dense, density, density_in, execution, final, levels, method, milestones, model, "
    "probe_examples, "
)
TRAINING = (
    "known: batch_size, clip_norm, label_smoothing, lr, lr_end_fraction, lr_warmup_passes, "
    "milestones, momentum, optimizer, schedule, step_factor, weight_decay"
)
RULES = (
    "known: accuracy-target, all-of, any-of, at-least, at-most, fixed-budget, gradient-flow, "
    "information-flow, loss-plateau, mask-distance, matrix-flow, plateau, relative-gradient-flow, "
    "relative-information-flow, settling, shock-budget"
)

WRONG_SETTINGS = [
    # unknown names, at every depth
    ({"denisty": 0.1}, f"denisty: unknown setting; did you mean 'density'? {FULL}seed, training"),
    ({"zzz": 0.1}, f"zzz: unknown setting; {FULL}seed, training"),
    ({"training": {"Lr": 1}}, f"training.Lr: unknown setting; did you mean 'lr'? {TRAINING}"),
    (
        {"execution": {"gpu": True}},
        "execution.gpu: unknown setting; known: checkpoint_seconds, device, precision, threads",
    ),
    # numbers
    ({"density": 0}, "density: got 0; expected greater than 0"),
    (
        {"density": 5},
        "density: got 5; expected less than or equal to 1. Density is the fraction kept: "
        "write 0.05 for 5 %",
    ),
    ({"density": 500}, "density: got 500; expected less than or equal to 1"),
    ({"density": math.nan}, "density: got nan; expected a finite number"),
    ({"density": math.inf}, "density: got inf; expected a finite number"),
    (
        {"density": "low"},
        "density: got 'low'; expected a valid number, unable to parse string as a number",
    ),
    ({"density": None}, "density: got None; expected a valid number"),
    ({"seed": -1}, "seed: got -1; expected greater than or equal to 0"),
    ({"seed": 2**63}, f"seed: got {2**63}; expected less than {2**63}"),
    (
        {"seed": 1.5},
        "seed: got 1.5; expected a valid integer, got a number with a fractional part",
    ),
    ({"probe_examples": 1}, "probe_examples: got 1; expected greater than or equal to 2"),
    ({"training": {"lr": 0}}, "training.lr: got 0; expected greater than 0"),
    ({"training": {"lr": math.inf}}, "training.lr: got inf; expected a finite number"),
    ({"training": {"momentum": 1}}, "training.momentum: got 1; expected less than 1"),
    ({"training": {"batch_size": 0}}, "training.batch_size: got 0; expected greater than or equal"),
    ({"training": {"clip_norm": 0}}, "training.clip_norm: got 0; expected greater than 0"),
    (
        {"training": {"milestones": [0.5, 2]}},
        "training.milestones.1: got 2; expected less than 1",
    ),
    ({"training": {"milestones": 0.5}}, "training.milestones: got 0.5; expected a valid tuple"),
    ({"data": {"held_out": 1}}, "data.held_out: got 1; expected less than 1"),
    ({"levels": {"unit": 0}}, "levels.unit: got 0; expected greater than 0"),
    ({"execution": {"threads": 0}}, "execution.threads: got 0; expected greater than or equal"),
    # words
    (
        {"training": {"optimizer": "sdg"}},
        "training.optimizer: got 'sdg'; did you mean 'sgd'? known: adamw, sgd",
    ),
    (
        {"final": {"schedule": "cosinus"}},
        "final.schedule: got 'cosinus'; did you mean 'cosine'? "
        "known: constant, cosine, one-cycle, step",
    ),
    (
        {"execution": {"device": "gpu"}},
        "execution.device: got 'gpu'; did you mean 'cpu'? known: auto, cpu, cuda, mps",
    ),
    ({"model": {"name": " "}}, "model.name: expected a model name, got an empty string"),
    (
        {"model": {"options": {"width": [1]}}},
        "model.options.width: got [1]; expected a valid integer",
    ),
    # mappings
    (
        {"training": 3},
        "training: got 3; expected a valid dictionary or instance of TrainingConfig",
    ),
    ({1: 2}, "1: got 1; keys should be strings"),
    # settings that do not go together
    (
        {"dense": {"passes": 2, "warmup_passes": 3}},
        "dense: warmup_passes (3) must not exceed passes (2)",
    ),
    ({"levels": {"min_passes": 9}}, "levels: min_passes (9) must not exceed max_passes (8)"),
    (
        {"levels": {"evaluate": "end"}},
        "levels.evaluate: got 'end'; did you mean 'ends'? known: ends, readings",
    ),
    ({"milestones": [0.5, 1.5]}, "milestones.1: got 1.5; expected less than or equal to 1"),
    (
        {"milestones": [0.2, 0.5]},
        "milestones must fall from below 1 to above density (0.05), got 0.2, 0.5",
    ),
    ({"milestones": [1]}, "milestones must fall from below 1 to above density (0.05), got 1"),
    ({"milestones": [0.05]}, "milestones must fall from below 1 to above density (0.05), got 0.05"),
    (
        {"method": {"name": "x", "rewind": {"to": "epoch", "passes": 9}}},
        "method.rewind.passes (9) must not exceed dense.passes (8): "
        "there is no such place in the dense training",
    ),
]

WRONG_METHODS = [
    ({"score": "magnitud"}, "method.score: got 'magnitud'; did you mean 'magnitude'?"),
    ({"keep_per_layer": -1}, "method.keep_per_layer: got -1; expected greater than or equal to 0"),
    (
        {"schedule": {"kind": "sapp"}},
        "method.schedule: got 'sapp'; did you mean 'sap'? known: cubic, fraction, linear, list, "
        "one-shot, sap",
    ),
    (
        {"schedule": {"kind": "fraction", "remove": 1.0}},
        "method.schedule.remove: got 1.0; expected less than 1",
    ),
    (
        {"schedule": {"kind": "fraction", "p": 1}},
        "method.schedule.p: unknown setting; known: kind, remove",
    ),
    (
        {"schedule": {"kind": "sap", "p": 2, "q": 1}},
        "method.schedule: expected 0 < p < q, got p=2, q=1",
    ),
    (
        {"schedule": {"kind": "sap"}, "scope": "layerwise"},
        "method: schedule 'sap' counts over all layers together: it needs scope 'global', "
        "got 'layerwise'",
    ),
    ({"stop": {"rule": "platau"}}, f"method.stop: got 'platau'; did you mean 'plateau'? {RULES}"),
    (
        {"stop": {"patience": 2}},
        "method.stop: got {'patience': 2}; expected a mapping with the key 'rule'",
    ),
    ({"stop": None}, "method.stop: got None; expected a valid dictionary"),
    (
        {"stop": {"rule": "information-flow"}},
        "method.stop.epsilon: a value is required and none was given",
    ),
    (
        {"stop": {"rule": "gradient-flow", "epsilon": 0}},
        "method.stop.epsilon: got 0; expected greater than 0",
    ),
    (
        {"stop": {"rule": "matrix-flow"}},
        "method.stop: expected either epsilon, a distance, or kappa, a multiple of the noise "
        "floor, got neither",
    ),
    (
        {"stop": {"rule": "matrix-flow", "epsilon": 0.4, "kappa": 1}},
        "method.stop: expected either epsilon, a distance, or kappa, a multiple of the noise "
        "floor, got both",
    ),
    (
        {"stop": {"rule": "matrix-flow", "measure": "cosine", "epsilon": 2.5}},
        "method.stop: expected epsilon of at most 2 for a cosine, got 2.5",
    ),
    (
        {"stop": {"rule": "matrix-flow", "kappa": 1, "reference": "traind"}},
        "method.stop.reference: got 'traind'; did you mean 'trained'? "
        "known: dense, last, pruned, trained, warm-up",
    ),
    (
        {"stop": {"rule": "matrix-flow", "kappa": math.inf}},
        "method.stop.kappa: got inf; expected a finite number",
    ),
    (
        {"stop": {"rule": "matrix-flow", "kappa": 1, "untrained": 0}},
        "method.stop.untrained: got 0; expected greater than 0",
    ),
    (
        {"stop": {"rule": "matrix-flow", "kappa": 1, "floor": "drit"}},
        "method.stop.floor: got 'drit'; did you mean 'drift'? known: drift, halves, larger",
    ),
    (
        {"stop": {"rule": "matrix-flow", "kappa": 1, "floor_readings": 1}},
        "method.stop.floor_readings: got 1; expected greater than or equal to 2",
    ),
    (
        {"stop": {"rule": "shock-budget", "fraction": 0}},
        "method.stop.fraction: got 0; expected greater than 0",
    ),
    (
        {"stop": {"rule": "shock-budget", "least": 1}},
        "method.stop.least: got 1; expected less than 1",
    ),
    (
        {"stop": {"rule": "settling", "fraction": 1}},
        "method.stop.fraction: got 1; expected less than 1",
    ),
    (
        {"stop": {"rule": "mask-distance", "epsilon": 3}},
        "method.stop.epsilon: got 3; expected less than or equal to 2",
    ),
    (
        {"stop": {"rule": "loss-plateau", "patience": 0}},
        "method.stop.patience: got 0; expected greater than 0",
    ),
    (
        {"reference": "dens"},
        "method.reference: got 'dens'; did you mean 'dense'? "
        "known: dense, pruned, trained, warm-up",
    ),
    (
        {"rewind": {"to": "none", "when": "end"}},
        "method.rewind: when 'end' needs a place to go back to before the final training, got to "
        "'none', which keeps the trained weights",
    ),
    (
        {"stop": {"rule": "any-of", "rules": [{"rule": "plateau", "patiance": 1}]}},
        "method.stop.rules.0.patiance: unknown setting; did you mean 'patience'? "
        "known: improvement, patience, rule",
    ),
    (
        {"stop": {"rule": "any-of", "rules": [{"rule": "plateau"}, {"ruel": "x"}]}},
        "method.stop.rules.1: got {'ruel': 'x'}; expected a mapping with the key 'rule'",
    ),
    (
        {"stop": {"rule": "all-of", "rules": []}},
        "method.stop.rules: got []; tuple should have at least 1 item",
    ),
    (
        {"stop": {"rule": "at-least", "passes": 1, "of": {"rule": "plateau", "patience": 0}}},
        "method.stop.of.patience: got 0; expected greater than 0",
    ),
    ({"stop": {"rule": "at-most", "passes": 1}}, "method.stop.of: a value is required"),
    (
        {"flow": {"edges": "grph"}},
        "method.flow.edges: got 'grph'; did you mean 'graph'? known: graph, main-path",
    ),
    ({"flow": {"edges": ["a", 3]}}, "method.flow.edges.1: got 3; expected a valid string"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG_SETTINGS)
def test_a_wrong_setting_is_named_with_its_value_and_the_remedy(settings, message) -> None:
    with pytest.raises(ConfigError) as caught:
        validated(RunConfig, {"method": {"name": "x"}, **settings})
    assert any(line.startswith(message) for line in str(caught.value).splitlines())


@pytest.mark.parametrize(("settings", "message"), WRONG_METHODS)
def test_a_wrong_method_setting_is_named_where_it_stands_in_the_whole(settings, message) -> None:
    with pytest.raises(ConfigError) as caught:
        validated(MethodConfig, {"name": "x", **settings}, at="method")
    assert any(line.startswith(message) for line in str(caught.value).splitlines())


@pytest.mark.parametrize(("settings", "_message"), WRONG_METHODS)
def test_a_nested_method_gives_the_same_messages(settings, _message) -> None:
    with pytest.raises(ConfigError) as alone:
        validated(MethodConfig, {"name": "x", **settings}, at="method")
    with pytest.raises(ConfigError) as nested:
        validated(RunConfig, {"method": {"name": "x", **settings}})
    assert str(nested.value) == str(alone.value)


def test_every_wrong_setting_is_told_at_once() -> None:
    wrong = {"method": {"name": "x"}, "density": 0, "training": {"lr": -1}, "sed": 1}
    with pytest.raises(ConfigError) as caught:
        validated(RunConfig, wrong)
    starts = sorted(line.partition(":")[0] for line in str(caught.value).splitlines())
    assert starts == ["density", "sed", "training.lr"]


def test_a_list_with_a_wrong_entry_is_not_also_called_too_short() -> None:
    stop = {"rule": "any-of", "rules": [{"rule": "platau"}]}
    with pytest.raises(ConfigError) as caught:
        validated(MethodConfig, {"name": "x", "stop": stop})
    assert str(caught.value) == f"stop.rules.0: got 'platau'; did you mean 'plateau'? {RULES}"


def test_a_wrong_setting_leaves_no_pydantic_error_behind() -> None:
    with pytest.raises(ConfigError) as caught:
        validated(RunConfig, {})
    assert str(caught.value) == "method: a value is required and none was given"
    assert caught.value.__suppress_context__
    assert isinstance(caught.value, ValueError)


def test_right_settings_come_back_as_they_are() -> None:
    method = MethodConfig(name="x", keep_per_layer=3)
    config = validated(RunConfig, {"method": method, "training": {"lr": "1e-3"}})
    assert config.method == method
    assert config.training.lr == 1e-3


def test_merging_replaces_leaves_and_keeps_the_rest() -> None:
    base = {"a": {"x": 1, "y": {"z": 2}}, "b": 3}
    changes = {"a": {"y": {"z": 5, "w": 6}}, "c": 7}
    assert merged(base, changes) == {"a": {"x": 1, "y": {"z": 5, "w": 6}}, "b": 3, "c": 7}
    assert base == {"a": {"x": 1, "y": {"z": 2}}, "b": 3}, "the base stays as it is"


@pytest.mark.parametrize("key", ["rule", "kind"])
def test_another_kind_brings_none_of_the_old_settings(key) -> None:
    base = {"axis": {key: "old", "setting": 1}}
    assert merged(base, {"axis": {key: "new"}}) == {"axis": {key: "new"}}
    same = {"axis": {key: "old", "setting": 1, "other": 2}}
    assert merged(base, {"axis": {key: "old", "other": 2}}) == same


@pytest.mark.parametrize("leaf", [None, 3, "word", [1], {"kind": "new"}])
def test_a_mapping_and_a_leaf_replace_each_other(leaf) -> None:
    assert merged({"a": {"x": 1}}, {"a": leaf}) == {"a": leaf}
    assert merged({"a": leaf}, {"a": {"x": 1}})["a"]["x"] == 1


def test_merging_nothing_changes_nothing() -> None:
    assert merged({"a": {"x": 1}}, {}) == {"a": {"x": 1}}
    assert merged({"a": {"x": 1}}, {"a": {}}) == {"a": {"x": 1}}
    assert merged({}, {"a": {"x": 1}}) == {"a": {"x": 1}}


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("lht", ["sap", "lth"], "did you mean 'lth'? known: lth, sap"),
        ("LTH", ["sap", "Lth"], "did you mean 'Lth'? known: Lth, sap"),
        ("zzz", ["sap", "lth"], "known: lth, sap"),
        (None, ["sap"], "known: sap"),
        (3, {"sap": 1}, "known: sap"),
        ("", [], "nothing is known here"),
    ],
)
def test_the_nearest_name_is_suggested(name, known, said) -> None:
    assert did_you_mean(name, known) == said
