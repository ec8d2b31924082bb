"""What every schedule keeps to: falling counts, an exact end, milestones, rounds, a slow twin."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

import infcop
from infcop.core.mask import Masks
from infcop.core.method import MethodConfig
from infcop.core.pattern import Pattern
from infcop.core.rate import Rate
from infcop.core.schedule import Adaptive, Cubic, Fraction, Linear, Schedule
from infcop.core.score import Score, SynFlow
from infcop.core.start import Start
from infcop.core.validation import merged, validated
from infcop.errors import ConfigError, PruningError
from infcop.masking.groups import Groups
from infcop.masking.prune import level_kept
from infcop.masking.schedule import Counting, level_count
from tests.end_to_end.conftest import toy_batches
from tests.reference import axes
from tests.reference.axis_networks import convolutional, mask_weights, scored, shapes_of, weights_of
from tests.reference.axis_twins import (
    SCHEDULE_TWINS,
    round_kept,
    schedule_kept,
    scope_survivors,
)

TARGET = 0.5
NETWORK = shapes_of(convolutional())
TOTAL = Masks.full(NETWORK).total
EVERY = axes.settings(Schedule, NETWORK, TARGET)
MORE = {
    "fraction of 0.29": Fraction(remove=0.29),
    "fraction of nearly all": Fraction(remove=0.99),
    "fraction of hardly any": Fraction(remove=0.01),
    "linear in 1": Linear(levels=1),
    "linear in 10": Linear(),
    "cubic in 20": Cubic(),
    "sap of other norms": Adaptive(p=1.0, q=2.0, gamma=1.5),
    "sap at most a tenth": Adaptive(beta=0.1),
}

every_schedule = pytest.mark.parametrize("schedule", EVERY.values(), ids=EVERY)


def test_every_schedule_of_the_settings_is_swept() -> None:
    assert axes.unprepared(Schedule) == ""
    assert axes.without_twin(Schedule, SCHEDULE_TWINS) == ""


def counts_by_itself(schedule: Any) -> bool:
    """Whether a schedule looks at nothing but counts, and so always comes to an end."""
    return isinstance(schedule, get_args(Counting))


def levels_of(
    schedule: Any, total: int, target: int, stops: Iterable[int] = ()
) -> tuple[list[int], list[int]]:
    """Return what is alive after every level, and what the slow twin says."""
    weights = {"w": torch.randn(total, generator=torch.Generator().manual_seed(total))}
    method = MethodConfig(name="mine", schedule=schedule)
    found, expected = [total], [total]
    while found[-1] > target:
        masks = Masks({"w": torch.arange(total) < found[-1]})
        level = len(found)
        stop = max((stop for stop in stops if stop < found[-1]), default=target)
        kept = level_kept(
            weights,
            masks,
            method,
            level=level,
            target_kept=target,
            stop_kept=stop,
            groups=Groups(),
        )
        alive = weights["w"][: found[-1]].tolist()
        expected.append(schedule_kept(schedule, alive, total, level, target, stop))
        if kept == found[-1]:
            break
        found.append(kept)
    return found, expected[: len(found)]


# -- counts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [*EVERY.values(), *MORE.values()], ids=[*EVERY, *MORE])
@pytest.mark.parametrize("total", [1, 2, 3, 10, 37, 147])
def test_counts_fall_to_exactly_the_target_as_the_formula_says(schedule: Any, total: int) -> None:
    for density in (0.01, 0.2, 0.5, 0.83, 1.0):
        target = max(round(density * total), 1)
        kept, expected = levels_of(schedule, total, target)
        assert kept == expected
        assert all(before > after for before, after in pairwise(kept))
        if counts_by_itself(schedule):
            assert kept[-1] == target
            assert level_count(schedule, total, target, most=10**6) == len(kept) - 1
        else:
            assert kept[-1] >= target


@pytest.mark.parametrize("schedule", [*EVERY.values(), *MORE.values()], ids=[*EVERY, *MORE])
def test_levels_end_at_every_stop_on_the_way(schedule: Any) -> None:
    stops = (140, 100, 99, 50)
    kept, expected = levels_of(schedule, TOTAL, 20, stops)
    assert kept == expected
    assert all(before > after for before, after in pairwise(kept))
    assert {stop for stop in stops if stop > kept[-1]} <= set(kept)
    if counts_by_itself(schedule):
        assert kept[-1] == 20


@every_schedule
@pytest.mark.parametrize("counts", [(0, 5), (5, 0)])
def test_a_target_of_nothing_is_refused(schedule: Any, counts: tuple[int, int]) -> None:
    method = MethodConfig(name="mine", schedule=schedule)
    arguments: dict[str, Any] = {"level": 1, "groups": Groups()}
    with pytest.raises(PruningError, match=r"of at least 1, got .* a higher density"):
        level_kept(
            {"w": torch.ones(9)},
            Masks.full({"w": (9,)}),
            method,
            target_kept=counts[0],
            stop_kept=counts[1],
            **arguments,
        )


# -- as settings -----------------------------------------------------------------------------------

AXES = {"score": Score, "start": Start, "pattern": Pattern, "schedule": Schedule, "rate": Rate}
NAMES = [
    (axis, member.model_fields["kind"].default)
    for axis, union in AXES.items()
    for member in axes.members(union)
    if not any(field.is_required() for field in member.model_fields.values())
]


@pytest.mark.parametrize(("axis", "kind"), NAMES)
def test_a_bare_name_stands_for_the_defaults_of_its_kind(axis: str, kind: str) -> None:
    union: TypeAdapter[Any] = TypeAdapter(AXES[axis])
    setting = union.validate_python(kind)
    assert setting == union.validate_python({"kind": kind})
    assert union.validate_json(union.dump_json(setting)) == setting
    # What is written over it replaces it, and it replaces what it is written over.
    written = {"kind": kind, "levels": 3}
    assert merged({axis: kind}, {axis: written}) == {axis: written}
    assert merged({axis: written}, {axis: kind}) == {axis: kind}


@pytest.mark.parametrize("axis", AXES)
def test_a_misspelt_name_is_met_with_the_nearest(axis: str) -> None:
    kind = next(kind for own, kind in NAMES if own == axis)
    with pytest.raises(
        ConfigError, match=rf"^method\.{axis}: got '{kind}e'; did you mean '{kind}'"
    ):
        validated(MethodConfig, {"name": "mine", axis: f"{kind}e"}, at="method")


def norm(weights: dict[str, Tensor], masks: Masks) -> float:
    return math.hypot(*(float(w) for name, m in masks.items() for w in weights[name][m]))


# -- in a search -----------------------------------------------------------------------------------


def searched(folder: Path, schedule: Any, method: Any = (), **changes: Any) -> infcop.Result:
    """Prune a network as it is given, without any training."""
    data = toy_batches(2)
    axis = {
        "start": "initialisation",
        "schedule": schedule,
        "rewind": {"to": "none"},
        "stop": {"rule": "fixed-budget", "passes": 0},
        "keep_per_layer": 1,
        **dict(method),
    }
    settings: dict[str, Any] = {"density": TARGET, "final": {"passes": 0}, **changes}
    return infcop.search(
        convolutional(),
        infcop.Classification(data, data),
        run_dir=folder,
        method=MethodConfig(name="mine", **axis),
        execution={"device": "cpu", "threads": 1},
        **settings,
    )


@every_schedule
@pytest.mark.parametrize("spacing", ["exponential", "linear"])
def test_a_search_prunes_round_by_round_what_the_twins_say(
    tmp_path: Path, schedule: Any, spacing: str
) -> None:
    result = searched(tmp_path, schedule, {"score": SynFlow(), "rounds": 3, "spacing": spacing})
    record = result.record
    target = round(TARGET * TOTAL)
    if counts_by_itself(schedule):
        assert result.outcome.kept == target
        assert len(record.levels) == level_count(schedule, TOTAL, target, most=100)
    weights = weights_of(convolutional())
    masks = Masks.full(NETWORK)
    for number, level in enumerate(record.levels, start=1):
        alive = torch.cat([weights[name][mask] for name, mask in masks.items()]).tolist()
        kept = schedule_kept(schedule, alive, TOTAL, number, target, target)
        assert level.kept == kept
        assert level.removed == masks.kept - kept
        before = masks
        for count in round_kept(masks.kept, kept, 3, spacing):
            model = convolutional()
            mask_weights(model, masks)
            scores = scored(SynFlow(), model, toy_batches(1), masks)
            masks = Masks(scope_survivors("global", scores, masks, count, target, 1))
        assert level.kept_per_layer == masks.kept_per_layer
        # Of the weights as they were before the first round masked any.
        whole, left = (norm(weights, one) for one in (before, masks))
        assert level.pruned_norm == pytest.approx((1 - (left / whole) ** 2) ** 0.5, rel=1e-9)
    for name, mask in masks.items():
        assert torch.equal(result.masks[name], mask)
        assert torch.equal(result.model.state_dict()[name], weights[name] * mask)


@every_schedule
def test_a_search_ends_levels_exactly_at_its_milestones(tmp_path: Path, schedule: Any) -> None:
    milestones = (0.81, 0.6, 0.59)
    if schedule.kind == "one-shot":
        with pytest.raises(ConfigError, match="it can't end at milestones"):
            searched(tmp_path, schedule, milestones=milestones)
        return
    record = searched(tmp_path, schedule, milestones=milestones).record
    wanted = [round(milestone * TOTAL) for milestone in milestones]
    assert [milestone.kept for milestone in record.milestones] == wanted
    assert set(wanted) <= {level.kept for level in record.levels}
    if counts_by_itself(schedule):
        assert record.levels[-1].kept == round(TARGET * TOTAL)


@every_schedule
def test_a_density_of_one_is_a_search_without_levels(tmp_path: Path, schedule: Any) -> None:
    result = searched(tmp_path, schedule, density=1.0)
    assert result.record.levels == ()
    assert result.density == 1.0
    for name, weight in weights_of(convolutional()).items():
        assert torch.equal(result.model.state_dict()[name], weight)
