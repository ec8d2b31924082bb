"""Where a search starts, how often it scores, and masks that move: in whole searches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import infcop
from infcop.core.mask import Masks
from infcop.errors import (
    ConfigError,
    InfcopWarning,
    LayerCollapseError,
    NoEffectWarning,
    PruningError,
)
from infcop.pipeline.store import load_record
from tests.end_to_end.conftest import SHORT, Interrupting, Search, Unplugged, toy_model, toy_task
from tests.end_to_end.test_search import same_tensors, without_time

BEFORE = ["snip", "grasp", "synflow", "random"]
MOVING = ["rigl", "set"]


@pytest.mark.parametrize("name", BEFORE)
def test_pruning_before_training_trains_the_sparse_network_alone(search: Search, name: str) -> None:
    result = search(method={"name": name, "rounds": 3}, final={"passes": 2})
    record = result.record
    assert record.dense.cost.training == 0
    assert [level.passes for level in record.levels] == [0.0]
    assert record.final is not None
    assert record.passes(record.final.cost.training) == 2
    assert result.outcome.dense == {}
    assert result.outcome.sparse["accuracy"] > 0.3
    # Of the dense training that was not made: two passes of it, and of scoring.
    assert infcop_cost(result) == pytest.approx(
        result.outcome.cost.forward_equivalents / (3 * 2 * record.data.train)
    )


def infcop_cost(result: infcop.Result) -> float:
    from infcop.report.summary import summary_dict

    cost: float = summary_dict(result.record)["search_cost"]
    return cost


def test_the_words_say_that_there_is_no_dense_network(search: Search) -> None:
    result = search(method="random")
    assert "none was trained to the end" in result.summary()
    page = result.report().read_text(encoding="utf-8")
    assert "no dense network was trained to the end" in page


def test_the_initialisation_is_what_is_pruned(search: Search) -> None:
    start = toy_model().state_dict()
    result = search(method={"name": "random", "score": "magnitude", "scope": "layerwise"})
    for name, mask in result.masks.items():
        size = start[name].abs()
        assert float(size[mask].min()) >= float(size[~mask].max())


def test_rounds_of_a_score_that_does_not_change_are_one_round(search: Search) -> None:
    once, often = (search(method={"name": "one-shot", "rounds": n}) for n in (1, 4))
    assert same_tensors(once.model, often.model)


def test_rounds_leave_the_weights_as_they_were(search: Search) -> None:
    # Weights that a round takes away and the next level keeps must still have their values.
    result = search(
        method={"name": "lth", "score": "taylor", "rounds": 3, "rewind": {"to": "none"}},
        levels={"max_passes": 1},
    )
    for name, mask in result.masks.items():
        weight = result.model.state_dict()[name]
        assert bool((weight[mask] != 0).all())
        assert bool((weight[~mask] == 0).all())


def test_excluded_layers_stay_dense(search: Search) -> None:
    result = search(method={"name": "lth", "exclude": ["Conv2d", "last"]})
    assert list(result.masks) == ["5.weight"]
    assert result.record.model.excluded["0.weight"] == "left out by method.exclude 'Conv2d'"
    assert bool((result.model.state_dict()["0.weight"] != 0).all())


def test_an_early_bird_stops_the_dense_training(search: Search) -> None:
    start = {"kind": "early-bird", "distance": 0.5, "window": 2}
    result = search(method={"name": "early-bird", "start": start}, dense={"passes": 6})
    dense = result.record.dense
    assert dense.stopped_by is not None
    assert dense.stopped_by.evidence["distance"] <= 0.5
    assert dense.readings[-1].passes == 2
    assert dense.readings[-1].main is not None
    assert result.outcome.dense == {}


def test_the_mask_that_settled_is_the_one_that_is_drawn(search: Search) -> None:
    start = {"kind": "early-bird", "distance": 0.5, "window": 2}
    method = {"name": "early-bird", "score": "fisher", "start": start}
    result = search(method=method, dense={"passes": 6}, probe_examples=32)
    dense, first = result.record.dense, result.record.levels[0]
    # Scored after each of two passes: once for the window, once for what settled, not again.
    scored = dense.cost.measuring_gradient
    assert scored > 0
    assert first.readings[0].cost.measuring_gradient == 0
    assert dense.cost == sum((reading.cost for reading in dense.readings), type(dense.cost)())


def test_a_distance_that_any_masks_keep_to_is_warned_of(search: Search) -> None:
    start = {"kind": "early-bird", "distance": 0.61, "window": 2}
    with pytest.warns(NoEffectWarning, match="differ in at most 60.0% of them"):
        result = search(method={"name": "early-bird", "start": start}, dense={"passes": 6})
    assert result.record.dense.stopped_by is not None
    assert result.record.warnings[0].endswith("set a distance below 0.6")


def test_scores_that_come_to_nothing_are_paid_for(
    search: Search, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Masks that would empty a layer are none, but their scores were computed."""
    start = {"kind": "early-bird", "distance": 0.01, "window": 3}
    method = {"name": "early-bird", "score": "fisher", "start": start}
    settings: dict[str, Any] = {"dense": {"passes": 3}, "probe_examples": 32}
    paid = search(method=method, **settings).record.dense.cost.measuring_gradient

    def emptying(*_: Any, **__: Any) -> Masks:
        raise LayerCollapseError("shrink: a layer would lose all")

    monkeypatch.setattr("infcop.pipeline.pruning.shrink", emptying)
    with pytest.raises(LayerCollapseError):
        search(method=method, **settings, run_dir=tmp_path / "emptying")
    assert load_record(tmp_path / "emptying").dense.cost.measuring_gradient == paid > 0


def test_an_early_bird_that_never_settles_trains_to_the_end(search: Search) -> None:
    start = {"kind": "early-bird", "distance": 1e-9, "window": 2}
    result = search(method={"name": "early-bird", "start": start})
    assert result.record.dense.stopped_by is None
    assert result.outcome.dense != {}


@pytest.mark.parametrize("name", MOVING)
def test_masks_move_at_the_density_of_every_layer(search: Search, name: str) -> None:
    regrow = {"every": 0.34, "until": 1.0}
    result = search(method={"name": name, "regrow": regrow}, final={"passes": 3})
    still = search(method={"name": name, "regrow": None}, final={"passes": 3})
    assert result.record.final is not None
    assert result.record.final.exchanged > 0
    moved = sum(int((result.masks[n] ^ still.masks[n]).sum()) for n in result.masks)
    assert moved > 0
    assert result.masks.kept_per_layer == still.masks.kept_per_layer
    for layer, mask in result.masks.items():
        assert bool((result.model.state_dict()[layer][~mask] == 0).all())


def test_movement_needs_its_own_training_even_where_one_is_shared(tmp_path: Path) -> None:
    from infcop.core.config import SearchConfig
    from infcop.core.validation import validated
    from infcop.methods import resolve_method
    from infcop.pipeline.search import run_search

    def run(folder: str, method: str) -> infcop.Result:
        settings = {**SHORT, "method": resolve_method(method)}
        return run_search(
            toy_model(),
            toy_task(),
            validated(SearchConfig, settings),
            run_dir=tmp_path / folder,
            dense_dir=tmp_path / "dense",
            model_name="toy",
            data_name="toy",
        )

    run("first", "gmp")
    shared, alone = run("second", "movement"), run("third", "movement")
    assert same_tensors(shared.model, alone.model)
    assert not all(
        bool((shared.model.state_dict()[n][m] == 0).any()) for n, m in shared.masks.items()
    )


SETTINGS: dict[str, dict[str, Any]] = {
    "rigl": {"method": {"name": "rigl", "regrow": {"every": 0.5}}, "final": {"passes": 3}},
    "set": {"method": "set", "final": {"passes": 3}},
    "movement": {
        "method": {"name": "movement", "schedule": {"kind": "cubic", "levels": 3}},
    },
    "early-bird": {
        "method": {"name": "early-bird", "start": {"kind": "early-bird", "window": 2}},
        "dense": {"passes": 4},
    },
    "synflow": {"method": {"name": "synflow", "rounds": 4}, "final": {"passes": 2}},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_interrupted_and_run_again(tmp_path: Path, name: str) -> None:
    settings = {**SHORT, **SETTINGS[name]}
    whole = infcop.search(toy_model(), toy_task(), run_dir=tmp_path / "whole", **settings)
    interruptions = 0
    for _ in range(100):
        try:
            result = infcop.search(
                toy_model(),
                toy_task(),
                run_dir=tmp_path / "parts",
                progress=Interrupting(5 + interruptions),
                **settings,
            )
            break
        except Unplugged:
            interruptions += 1
    assert interruptions >= 1
    assert same_tensors(result.model, whole.model)
    assert without_time(result.record) == without_time(whole.record)
    assert all(torch.equal(result.masks[name], mask) for name, mask in whole.masks.items())


def test_a_layer_may_be_emptied_on_request(search: Search) -> None:
    few = {"name": "one-shot", "score": "random", "scope": "global"}
    with pytest.raises(LayerCollapseError, match="empty_layers"):
        search(method=few, density=0.002)
    with pytest.warns(InfcopWarning, match="lost all weights"):
        result = search(method={**few, "empty_layers": "report"}, density=0.002)
    assert 0 in result.masks.kept_per_layer.values()
    assert any("lost all weights" in warning for warning in result.record.warnings)


@pytest.mark.parametrize(
    ("method", "changes", "error", "says"),
    [
        ({"name": "lth", "exclude": ["6.weight"]}, {}, ConfigError, "names no prunable layer"),
        ({"name": "lth", "exclude": ["*"]}, {}, ConfigError, "leave something to prune"),
        ({"name": "lth", "score": "magnitud"}, {}, ConfigError, "did you mean 'magnitude'"),
        ({"name": "lth", "pattern": "n-of-m"}, {}, PruningError, "method.exclude"),
        ({"name": "lth", "pattern": "n-of-m", "exclude": ["first"]}, {}, PruningError, "density"),
        (
            {"name": "lth", "pattern": {"kind": "n-of-m", "n": 4, "m": 2}},
            {},
            ConfigError,
            "n below m",
        ),
        ({"name": "lth", "keep_per_layer": 10000}, {}, PruningError, "keep_per_layer"),
        ({"name": "infcop", "start": "initialisation"}, {}, ConfigError, "fixed-budget"),
        ({"name": "movement", "start": "initialisation"}, {}, ConfigError, "movement"),
        ({"name": "lth-rewind", "start": "initialisation"}, {}, ConfigError, "rewind.to"),
        ({"name": "snip", "score": "grasp", "scope": "lamp"}, {}, ConfigError, "squares"),
        (
            {"name": "lth", "pattern": "n-of-m", "exclude": ["first"]},
            {"milestones": [0.6]},
            ConfigError,
            "multiples of 1/4",
        ),
        ("rigl", {"milestones": [0.5]}, ConfigError, "milestone"),
        ("rigl", {"final": {"passes": 0}}, ConfigError, "final.passes"),
        ("rigl", {"final": {"passes": 1}}, ConfigError, "no exchange"),
        ("early-bird", {}, ConfigError, "one mask for each pass"),
        ({"name": "early-bird", "score": "random"}, {"dense": {"passes": 6}}, ConfigError, "drawn"),
        (
            {"name": "rigl", "pattern": "channel"},
            {},
            ConfigError,
            "exchanges single entries",
        ),
        (
            {"name": "lth", "schedule": {"kind": "list", "densities": [0.5, 0.6]}},
            {},
            ConfigError,
            "densities that fall",
        ),
        (
            {"name": "lth", "scope": {"kind": "budgets", "densities": {"*": 0.9}}},
            {},
            PruningError,
            "density",
        ),
    ],
)
def test_what_can_not_be_is_refused_before_training(
    tmp_path: Path, method: Any, changes: dict[str, Any], error: type[Exception], says: str
) -> None:
    settings = {**SHORT, "method": method, **changes}
    with pytest.raises(error, match=says):
        infcop.search(toy_model(), toy_task(), run_dir=tmp_path / "run", **settings)
    checkpoints = tmp_path / "run" / "checkpoints"
    assert not checkpoints.exists() or not list(checkpoints.glob("*.safetensors"))


def test_levels_go_back_to_an_early_iteration(search: Search, tmp_path: Path) -> None:
    whole = {"name": "lth", "rewind": {"to": "epoch", "passes": 1}}
    early = {"name": "lth", "rewind": {"to": "epoch", "passes": 0.34}}
    first = search(method=early, levels={"max_passes": 1})
    places = [reading.passes for reading in first.record.dense.readings]
    # Six batches a pass: the first step at which so many passes are made is the third.
    assert places == [0.5, 1, 2]
    assert all(level.rewound_to == "epoch" for level in first.record.levels)
    other = search(method=whole, levels={"max_passes": 1})
    assert not same_tensors(first.model, other.model)
    values = load_file(first.run_dir / "checkpoints" / "rewind.safetensors")
    assert values["0.weight"].shape == (6, 1, 3, 3)
