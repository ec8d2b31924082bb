"""The configs of the authors' protocol are valid and build, without any training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from infcop.core.compare import CompareConfig
from infcop.core.config import ModelConfig, RunConfig
from infcop.core.method import (
    AccuracyTarget,
    Adaptive,
    GradientFlow,
    InformationFlow,
    MethodConfig,
    rule_parts,
)
from infcop.models.build import build_model
from infcop.models.graph import select_edges, trace_graph
from infcop.models.prunable import find_prunable
from infcop.pipeline.configure import load_config
from infcop.study.configure import load_comparison
from infcop.study.jobs import check_runs, count_runs
from tests.docs.test_docs import Block, blocks_of, commands_of

FOLDER = Path(__file__).parents[2] / "configs" / "paper"
README = FOLDER / "README.md"
GRIDS = ("reference-code", "corrected")
COMPARISONS = (*GRIDS, "epsilons")
SEARCHES = ("resnet-18", "vgg-16")

FACTS = {
    "mnist": {"in_channels": 1, "image_size": 28, "num_classes": 10},
    "fashion-mnist": {"in_channels": 1, "image_size": 28, "num_classes": 10},
    "cifar-10": {"in_channels": 3, "image_size": 32, "num_classes": 10},
    "cifar-100": {"in_channels": 3, "image_size": 32, "num_classes": 100},
    "tiny-imagenet": {"in_channels": 3, "image_size": 64, "num_classes": 200},
}
PRUNABLE = {"resnet-18": 21, "vgg-16": 16}
CHAIN = {"resnet-18": 17, "vgg-16": 15}


def comparison(name: str) -> CompareConfig:
    return load_comparison(FOLDER / f"{name}.yaml")


def searches() -> Iterator[tuple[str, list[str]]]:
    """Yield file and words of every search that the page shows."""
    for block in blocks_of(README.read_text(encoding="utf-8")):
        yield from searches_of(block)


def searches_of(block: Block) -> Iterator[tuple[str, list[str]]]:
    for words in commands_of(block) if block.language == "sh" else []:
        if words[:2] == ["infcop", "search"]:
            assert words[-2] == "--run-dir"
            yield Path(words[2]).stem, words[3:-2]


SHOWN = list(searches())


def test_every_file_is_known() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*COMPARISONS, *SEARCHES}
    text = README.read_text(encoding="utf-8")
    assert all(f"[{name}.yaml]({name}.yaml)" in text for name in (*COMPARISONS, *SEARCHES))


@pytest.mark.parametrize("name", COMPARISONS)
def test_a_comparison_resolves_on_every_setting_and_has_as_many_runs_as_told(name: str) -> None:
    config = comparison(name)
    check_runs(config)
    (row,) = (r for r in README.read_text("utf-8").splitlines() if r.startswith(f"| [{name}.yaml]"))
    assert row.split("|")[-2].strip() == str(count_runs(config))


@pytest.mark.parametrize("name", GRIDS)
def test_the_grids_hold_every_pair_of_model_and_data(name: str) -> None:
    pairs = {(s.model.name, s.data.name) for s in comparison(name).settings.values()}
    resnets = {("resnet-18", data) for data in FACTS}
    assert pairs == resnets | {("vgg-16", "mnist"), ("vgg-16", "fashion-mnist")}


def every_recipe() -> Iterator[Any]:
    for name in COMPARISONS:
        yield from comparison(name).settings.values()
    for name in SEARCHES:
        yield load_config(FOLDER / f"{name}.yaml")


def test_there_is_one_recipe() -> None:
    for one in every_recipe():
        training = one.training
        assert (training.optimizer, training.lr, training.momentum) == ("sgd", 0.01, 0)
        assert (training.schedule, training.batch_size) == ("constant", 64)
        assert (one.dense.passes, one.dense.warmup, one.final.passes) == (60, 20, 0)
        levels = one.levels
        assert (levels.unit, levels.min_passes, levels.max_passes) == (2, 2, 40)
        assert one.probe_examples is None


def axes(method: MethodConfig) -> tuple[str, tuple[float, float] | None, list[float]]:
    schedule = method.schedule
    pair = (schedule.p, schedule.q) if isinstance(schedule, Adaptive) else None
    flows = [p for p in rule_parts(method.stop) if isinstance(p, InformationFlow | GradientFlow)]
    return method.name, pair, [flow.epsilon for flow in flows]


PAIRS = ((0.5, 1.0), (1.0, 2.0))


@pytest.mark.parametrize(
    ("name", "suffix"), [("reference-code", "-reference-code"), (GRIDS[1], "")]
)
def test_a_grid_has_the_published_thresholds_and_both_pairs(name: str, suffix: str) -> None:
    methods = [entry.method for entry in comparison(name).methods.values()]
    found = [axes(method) for method in methods]
    expected = [("lth", None, []), *(("sap", pair, []) for pair in PAIRS)]
    expected += [(f"infcop-if{suffix}", pair, [0.11]) for pair in PAIRS]
    expected += [(f"infcop-gf{suffix}", pair, [0.5]) for pair in PAIRS]
    assert sorted(map(str, found)) == sorted(map(str, expected))
    restored = {method.rewind.restores for method in methods}
    assert restored == {"prunable-weights" if suffix else "everything"}
    assert {method.rewind.to for method in methods} == {"warm-up"}


def test_the_sweep_has_every_threshold_with_both_presets_and_pairs() -> None:
    methods = [entry.method for entry in comparison("epsilons").methods.values()]
    found = [axes(method) for method in methods if method.name.startswith("infcop")]
    sweeps = {"infcop-if": (0.08, 0.10, 0.11, 0.12, 0.15), "infcop-gf": (0.3, 0.4, 0.5, 0.6, 0.7)}
    expected = [
        (name + suffix, pair, [epsilon])
        for name, epsilons in sweeps.items()
        for suffix in ("", "-reference-code")
        for pair in PAIRS
        for epsilon in epsilons
    ]
    assert sorted(found) == sorted(expected)


def reference_code_methods() -> Iterator[MethodConfig]:
    for name in COMPARISONS:
        yield from (entry.method for entry in comparison(name).methods.values())
    for file, words in SHOWN:
        yield load_config(FOLDER / f"{file}.yaml", words).method


def test_norms_meet_means_wherever_the_code_is_imitated_and_nowhere_else() -> None:
    imitating = set()
    for method in reference_code_methods():
        for part in rule_parts(method.stop):
            if isinstance(part, GradientFlow):
                expected = "mean" if method.name.endswith("-reference-code") else None
                assert part.reference_statistic == expected
                imitating.add(expected)
    assert imitating == {"mean", None}


def test_the_accuracy_cap_comes_after_the_flow_rule() -> None:
    for entry in comparison("reference-code").methods.values():
        if entry.method.name.startswith("infcop"):
            _, flow, cap = rule_parts(entry.method.stop)
            assert isinstance(flow, InformationFlow | GradientFlow)
            assert cap == AccuracyTarget()


@pytest.mark.parametrize(("file", "words"), SHOWN, ids=[" ".join([f, *w])[:60] for f, w in SHOWN])
def test_a_search_of_the_page_resolves_and_its_model_builds(file: str, words: list[str]) -> None:
    config = load_config(FOLDER / f"{file}.yaml", words)
    assert config.levels.max_levels == 14
    assert prunable_of(config.model, config.data.name) == PRUNABLE[config.model.name]


def test_the_page_shows_every_data_set_and_method() -> None:
    configs: list[RunConfig] = [load_config(FOLDER / f"{f}.yaml", words) for f, words in SHOWN]
    assert {config.data.name for config in configs} == {*FACTS}
    names = {config.method.name for config in configs}
    flows = {f"infcop-{kind}{code}" for kind in ("if", "gf") for code in ("", "-reference-code")}
    assert names == {"lth", "sap"} | flows


@pytest.mark.parametrize("name", COMPARISONS)
def test_every_model_builds_at_full_size(name: str) -> None:
    for setting in comparison(name).settings.values():
        found = prunable_of(setting.model, setting.data.name)
        assert found == PRUNABLE[setting.model.name]


def prunable_of(model: ModelConfig, data: str) -> int:
    """Return how many tensors of a model may be pruned; it takes no memory."""
    with torch.device("meta"):
        built = build_model(model.name, **FACTS[data], options=model.options)
        size = FACTS[data]["image_size"]
        logits = built(torch.zeros(2, FACTS[data]["in_channels"], size, size))
    assert logits.shape == (2, FACTS[data]["num_classes"])
    return len(find_prunable(built).names)


@pytest.mark.parametrize("label", comparison("reference-code").settings)
def test_the_chain_is_as_long_as_theirs(label: str) -> None:
    setting = comparison("reference-code").settings[label]
    facts = FACTS[setting.data.name]
    options = {**setting.model.options, "width": 0.05}
    model = build_model(setting.model.name, **facts, options=options)
    images = torch.randn(2, facts["in_channels"], facts["image_size"], facts["image_size"])
    graph = trace_graph(model, (images,), find_prunable(model), examples=2)
    assert len(select_edges(graph, "main-path").edges) == CHAIN[setting.model.name]
