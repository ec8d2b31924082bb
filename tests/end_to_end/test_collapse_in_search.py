"""A search that trains smaller networks on the way comes to what it would come to without."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

import infcop
from infcop.core.config import SearchConfig
from infcop.errors import ConfigError, NoEffectWarning
from infcop.pipeline.progress import LoggedProgress
from tests.end_to_end.conftest import Interrupting, Unplugged
from tests.end_to_end.test_search import same_tensors, without_time
from tests.reference.shrunk import (
    ADAMW,
    SGD,
    Attentive,
    Residual,
    assert_same_search,
    layered,
    searched,
)

REMOVE = {"kind": "fraction", "remove": 0.78}


def method(**axes: Any) -> dict[str, Any]:
    return {"name": "lth", "schedule": REMOVE, **axes}


def both(make: Any, folder: Path, **changes: Any) -> tuple[infcop.Result, infcop.Result]:
    """Return the results of a search with and without collapse."""
    ours = searched(make, folder / "ours", collapse=True, **changes)
    return ours, searched(make, folder / "plain", collapse=False, **changes)


def trained_sizes(record: Any) -> list[int | None]:
    phases = [*record.levels, *([] if record.final is None else [record.final])]
    return [phase.trained_parameters for phase in phases]


@pytest.mark.parametrize(
    ("rewind", "training"),
    [
        ({"to": "initialisation"}, SGD),
        ({"to": "epoch", "passes": 1}, ADAMW),
        ({"to": "warm-up", "restores": "prunable-weights"}, SGD),
        ({"to": "learning-rate"}, ADAMW),
        ({"to": "none"}, SGD),
        ({"to": "warm-up", "when": "end"}, ADAMW),
    ],
    ids=["initialisation", "epoch", "weights-only", "learning-rate", "none", "end"],
)
def test_every_rewind_and_optimiser(
    tmp_path: Path, rewind: dict[str, Any], training: dict[str, Any]
) -> None:
    ours, plain = both(
        layered, tmp_path, method=method(rewind=rewind), training=training, density=0.05
    )
    sizes = trained_sizes(ours.record)
    assert (sizes[-1] or math.inf) < 0.7 * ours.record.model.parameters
    assert_same_search(ours, plain)


@pytest.mark.parametrize(
    ("make", "pattern", "changes"),
    [
        (Residual, "coupled-channels", {"training": SGD}),
        (Residual, "coupled-channels", {"training": ADAMW, "density_in": "flops", "density": 0.32}),
        (Attentive, "heads", {"training": ADAMW, "density": 0.7}),
        (Residual, "unstructured", {"density": 0.02, "levels": {"evaluate": "ends"}}),
    ],
    ids=["channels", "flops", "heads", "unstructured"],
)
def test_every_pattern(tmp_path: Path, make: Any, pattern: str, changes: dict[str, Any]) -> None:
    kept = {"rewind": {"to": "none"}, "exclude": ["last", "embed"] if pattern == "heads" else []}
    ours, plain = both(make, tmp_path, method=method(pattern=pattern, **kept), **changes)
    sizes = [size for size in trained_sizes(ours.record) if size is not None]
    assert len(sizes) >= 2
    assert sizes == sorted(sizes, reverse=True)
    assert ours.record.warnings == ()
    assert_same_search(ours, plain)


@pytest.mark.parametrize(
    "axes",
    [
        {"score": "movement"},
        {"score": "wanda"},
        {"score": "taylor"},
        {"stop": {"rule": "information-flow", "epsilon": 0.5}},
        {"stop": {"rule": "mask-distance", "epsilon": 0.05}},
        {"flow": {"every_reading": True}},
    ],
    ids=lambda axes: str(next(iter(axes.values()))),
)
def test_what_looks_at_the_network_sees_the_same(tmp_path: Path, axes: dict[str, Any]) -> None:
    kept = method(rewind={"to": "learning-rate"}, **axes)
    ours, plain = both(layered, tmp_path, method=kept, training=SGD, density=0.05)
    assert trained_sizes(ours.record)[-1] is not None
    assert_same_search(ours, plain)


def test_milestones_branch_off_as_without(tmp_path: Path) -> None:
    ours, plain = both(layered, tmp_path, milestones=(0.3, 0.1), density=0.05, training=SGD)
    finals = [milestone.final for milestone in ours.record.milestones]
    sizes = [final.trained_parameters for final in finals]
    assert len(sizes) == 2
    assert None not in sizes
    assert_same_search(ours, plain)


class Penalised(infcop.Classification):
    """Also decays all parameters that the model has, towards other values than zero."""

    def training_step(self, model: nn.Module, batch: Any) -> Tensor:
        penalty = sum(parameter.abs().sum() for parameter in model.parameters())
        loss: Tensor = super().training_step(model, batch) + 1e-3 * penalty
        return loss


def test_what_was_removed_belongs_to_the_parameters(tmp_path: Path) -> None:
    ours, plain = both(layered, tmp_path, task=Penalised, density=0.05, training=SGD)
    assert trained_sizes(ours.record)[-1] is not None
    # The loss is a sum in another order, not another sum.
    assert_same_search(ours, plain)


def test_without_anything_to_remove_it_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    ours, plain = both(layered, tmp_path, density=0.9)
    assert set(trained_sizes(ours.record)) == {None}
    assert same_tensors(ours.model, plain.model)


class Branching(nn.Module):
    """Looks at its inputs, which no trace can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = layered()

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layers(inputs if inputs.sum() > 0 else -inputs)
        return outputs


def test_where_it_fails_the_search_goes_on_and_warns_once(tmp_path: Path) -> None:
    with pytest.warns(NoEffectWarning, match="can't be collapsed, and is trained with its masks"):
        ours = searched(Branching, tmp_path / "ours", collapse=True)
    plain = searched(Branching, tmp_path / "plain", collapse=False)
    assert len(ours.record.levels) > 1
    assert len(ours.record.warnings) == 1
    assert same_tensors(ours.model, plain.model)


def test_statistics_that_flow_looks_at_are_not_left_behind(tmp_path: Path) -> None:
    changes = {"density": 0.02, "method": method(rewind={"to": "none"})}
    with pytest.warns(NoEffectWarning, match="keeps statistics of units that nothing reads"):
        ours = searched(Residual, tmp_path / "ours", collapse=True, **changes)
    plain = searched(Residual, tmp_path / "plain", collapse=False, **changes)
    assert None in trained_sizes(ours.record)
    assert len(ours.record.warnings) == 1
    for one, other in zip(ours.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    pairs = zip(ours.record.levels, plain.record.levels, strict=True)
    for one, other in pairs:
        for found, expected in zip(one.readings, other.readings, strict=True):
            assert list(found.flows) == list(expected.flows)
            for name, flow in expected.flows.items():
                assert found.flows[name] == pytest.approx(flow, abs=1e-9), name


class Saying(LoggedProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_it_is_told_what_is_trained(tmp_path: Path) -> None:
    progress = Saying()
    axes = method(pattern="coupled-channels")
    result = searched(Residual, tmp_path, collapse=True, progress=progress, method=axes)
    whole = result.record.model.parameters
    sizes = [size for size in trained_sizes(result.record) if size is not None]
    told = [line for line in progress.lines if line.startswith("collapsed for training: ")]
    assert len(told) == len(sizes) > 1
    for size, line in zip(sizes, told, strict=True):
        assert f"{size:,} of {whole:,} parameters" in line
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    logged = [event for event in events if event["event"] == "collapsed"]
    assert [(event["trained"], event["parameters"]) for event in logged] == [
        (size, whole) for size in sizes
    ]


def test_the_result_has_the_original_size_and_names(tmp_path: Path) -> None:
    model = Residual()
    axes = method(pattern="coupled-channels")
    result = searched(Residual, tmp_path, collapse=True, method=axes)
    fresh = Residual().double()
    fresh.load_state_dict(result.model.state_dict())
    assert type(result.model) is Residual
    assert [p.shape for p in model.parameters()] == [p.shape for p in result.model.parameters()]
    for name, mask in result.masks.items():
        assert not bool(result.model.state_dict()[name][~mask].any())


def dropping() -> nn.Module:
    """Return a network in which dropout and statistics depend on the place of a step."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1)),
        *(nn.Linear(216, 12), nn.ReLU(), nn.Linear(12, 3)),
    )


@pytest.mark.parametrize(("score", "every"), [("magnitude", 7), ("movement", 13)])
def test_interrupted_equals_uninterrupted(tmp_path: Path, every: int, score: str) -> None:
    settings = {
        "method": method(pattern="coupled-channels", score=score, rewind={"to": "learning-rate"}),
        "training": ADAMW,
        "density": 0.25,
        "milestones": (0.5,),
        "execution": {"checkpoint_seconds": 0},
    }
    whole = searched(dropping, tmp_path / "whole", collapse=True, **settings)
    assert trained_sizes(whole.record)[-1] is not None
    for interruptions in itertools.count():
        progress = Interrupting(every)
        try:
            ours = searched(
                dropping, tmp_path / "cut", collapse=True, progress=progress, **settings
            )
            break
        except Unplugged:
            assert interruptions < 100
    assert interruptions >= 2
    assert same_tensors(ours.model, whole.model)
    assert without_time(ours.record) == without_time(whole.record)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"name": "rigl"}, "method.regrow may bring them back; leave one of them out"),
        (
            {"name": "lth", "flow": {"source": "training"}},
            "levels.collapse needs method.flow.source 'probe', got 'training'",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, axes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        searched(layered, tmp_path, collapse=True, method=axes)


def test_the_setting_is_off_by_default() -> None:
    config = SearchConfig.model_validate({"method": {"name": "lth"}})
    assert config.levels.collapse is False
    with pytest.raises(ValidationError):
        SearchConfig.model_validate({"method": {"name": "lth"}, "levels": {"collapse": "some"}})
