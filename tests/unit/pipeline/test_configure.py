from __future__ import annotations

from pathlib import Path

import pytest

from infcop.core.config import RunConfig
from infcop.core.method import AnyOf, InformationFlow, Plateau
from infcop.errors import ConfigError
from infcop.methods import resolve_method
from infcop.pipeline.configure import load_config, resolve_config
from infcop.pipeline.demo import demo_config


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_file_becomes_settings(tmp_path) -> None:
    path = written(
        tmp_path,
        """
        density: 0.1
        method: {name: lth, scope: global}
        training: {lr: 1e-3, milestones: [0.2, 0.4]}
        model: {name: lenet-5, options: {width: 2}}
        probe_examples: null
        """,
    )
    config = load_config(path)
    assert config == RunConfig(
        density=0.1,
        method=resolve_method("lth").model_copy(update={"scope": "global"}),
        training={"lr": 0.001, "milestones": (0.2, 0.4)},
        model={"name": "lenet-5", "options": {"width": 2}},
        probe_examples=None,
    )


def test_an_empty_file_means_the_defaults(tmp_path) -> None:
    expected = RunConfig(method=resolve_method("infcop"))
    assert load_config(written(tmp_path, "")) == expected
    assert load_config(written(tmp_path, "# nothing\n")) == expected
    assert resolve_config({}) == expected


@pytest.mark.parametrize(
    ("words", "path", "value"),
    [
        (["density=0.1"], "density", 0.1),
        (["training.lr=1e-2"], "training.lr", 0.01),
        (["training.lr=0.1", "training.lr=0.2"], "training.lr", 0.2),
        (["training.milestones=[0.1, 0.9]"], "training.milestones", (0.1, 0.9)),
        (["probe_examples=null"], "probe_examples", None),
        (["probe_examples="], "probe_examples", None),
        (["data.augment=true"], "data.augment", True),
        (["data.dir=a=b/c d"], "data.dir", "a=b/c d"),
        (["data.dir='12'"], "data.dir", "12"),
        (["data.name=a: b: c"], "data.name", "a: b: c"),
        (["execution={device: cpu, threads: 3}"], "execution.threads", 3),
        (["model.options.width=2"], "model.options", {"width": 2}),
        (["method=sap"], "method.name", "sap"),
        (["method.scope=global"], "method.scope", "global"),
        (["method.rewind.to=none"], "method.rewind.to", "none"),
        (["method=lth", "method.keep_per_layer=2"], "method.keep_per_layer", 2),
    ],
)
def test_words_change_settings(words, path, value) -> None:
    found: object = resolve_config({"method": "lth"}, words)
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value


def test_words_keep_what_they_do_not_name() -> None:
    content = {"method": {"name": "sap", "keep_per_layer": 3}, "training": {"lr": 0.2}}
    config = resolve_config(content, ["training.momentum=0.5", "method.rewind.to=none"])
    assert (config.training.lr, config.training.momentum) == (0.2, 0.5)
    assert (config.method.keep_per_layer, config.method.rewind.to) == (3, "none")
    assert config.method.schedule == resolve_method("sap").schedule
    unchanged = {"method": {"name": "sap", "keep_per_layer": 3}, "training": {"lr": 0.2}}
    assert content == unchanged, "the mapping given stays as it is"


def test_words_reach_into_lists() -> None:
    rules = [{"rule": "information-flow", "epsilon": 0.1}, {"rule": "plateau"}]
    content = {"method": {"name": "lth", "stop": {"rule": "any-of", "rules": rules}}}
    words = ["method.stop.rules.0.epsilon=0.3", "method.stop.rules.1.patience=4"]
    stop = resolve_config(content, words).method.stop
    assert stop == AnyOf(rules=(InformationFlow(epsilon=0.3), Plateau(patience=4)))
    assert rules[0]["epsilon"] == 0.1
    replaced = resolve_config(content, ["method.stop.rules.1={rule: plateau, patience: 9}"])
    assert replaced.method.stop.rules[1] == Plateau(patience=9)


def test_another_rule_by_word_replaces_the_whole_rule() -> None:
    config = resolve_config({"method": "infcop-if"}, ["method.stop.rule=plateau"])
    assert config.method.stop == Plateau()
    assert config.method.name == "infcop-if"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("density", "'density': expected key=value, for instance training.lr=0.1"),
        ("=1", "'=1': expected key=value"),
        ("", "'': expected key=value"),
        ("denisty=1", "denisty: unknown setting; did you mean 'density'?"),
        ("training.rl=1", "training.rl: unknown setting; did you mean 'lr'?"),
        ("a.b.c=1", "a: unknown setting; known: data, dense"),
        ("data.method.x=1", "data.method: unknown setting; known: augment, dir"),
        (".=1", "unknown setting"),
        ("density=", "density: got None; expected a valid number"),
        ("density=[", "density: got '['; expected a valid number"),
        ("training.lr.x=3", "training.lr.x: 'lr' holds 0.2, which has no 'x' in it"),
        ("method.stop.rules.2.x=1", "method.stop.rules.2.x: '2' is no place in a list of 1"),
        ("method.stop.rules.one=1", "'one' is no place in a list of 1 entries"),
        ("method.stop.rules.-1=1", "'-1' is no place in a list of 1 entries"),
    ],
)
def test_a_wrong_word_is_explained(word, message) -> None:
    stop = {"rule": "any-of", "rules": [{"rule": "plateau"}]}
    content = {"method": {"name": "lth", "stop": stop}, "training": {"lr": 0.2}}
    with pytest.raises(ConfigError) as caught:
        resolve_config(content, [word])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- density", "expected a mapping of settings, got list; see examples/digits.yaml"),
        ("density", "expected a mapping of settings, got str"),
        ("3", "expected a mapping of settings, got int"),
        ("density: [", "can't be read as YAML"),
        ("a: 1\n b: 2", "can't be read as YAML"),
        ("\tdensity: 1", "can't be read as YAML"),
        ("density: !!python/object/apply:os.getcwd []", "can't be read as YAML"),
        (b"\xff\xfe\x00", "can't be read as YAML"),
        ("density: 0.1\n1: 2", "1: got 1; keys should be strings"),
        ("training:\n", "training: got None; expected a valid dictionary"),
        ("method:\n", "method: expected a name, or a mapping with a name"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path, text, message) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, text))
    assert message in str(caught.value)


def test_a_missing_file_is_explained(tmp_path) -> None:
    with pytest.raises(ConfigError, match="there is no such file; expected a YAML config"):
        load_config(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match=r"can't be read as YAML: .*Is a directory"):
        load_config(tmp_path)


def test_resolved_settings_resolve_to_themselves() -> None:
    config = resolve_config({"method": "infcop-gf"}, ["method.keep_per_layer=2", "density=0.3"])
    assert resolve_config(config.model_dump(mode="json")) == config


def test_the_demo_needs_no_files_and_differs_from_the_defaults_in_little() -> None:
    config = demo_config()
    assert (config.data.name, config.data.dir) == ("digits", None)
    assert config.method == resolve_config({}).method
    assert config.milestones == (0.2,)
    assert config.execution.device == "auto"
    assert demo_config() == config
