"""What pattern "coupled-channels" keeps to in whole searches: size, order, and what is left."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

import infcop
from infcop.collapse import channel_groups, compact
from infcop.core.mask import Masks
from infcop.core.method import MethodConfig
from infcop.core.pattern import CoupledChannels, Reduce
from infcop.errors import ConfigError, InfcopWarning, PruningError
from infcop.masking.coupled import Prices
from infcop.models.flops import multiply_adds
from infcop.models.prunable import find_prunable
from tests.reference.axis_networks import batches
from tests.reference.channels import slow_normalised, slow_scores, slow_shrink

SHAPE = (1, 9, 9)


class Net(nn.Module):
    """A residual branch, a depthwise layer and a concatenation, with normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.inner, self.outer = nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(8, 6, 1)
        self.depthwise = nn.Conv2d(6, 6, 3, stride=2, groups=6)
        self.side = nn.Conv2d(6, 7, 3, stride=2)
        self.head = nn.Linear(13, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.outer(self.inner(x).relu())
        x = torch.cat([self.depthwise(x), self.side(x)], dim=1).relu()
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def net() -> nn.Module:
    torch.manual_seed(0)
    return Net()


def wide_net() -> nn.Module:
    """Return a network with channels that are each less than a hundredth of it."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 96, 3), nn.BatchNorm2d(96), nn.ReLU(), nn.Conv2d(96, 160, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(160, 3),
    )  # fmt: skip


def search(folder: Path, *, model: nn.Module | None = None, **changes: Any) -> infcop.Result:
    data = batches(*SHAPE)
    pattern = changes.pop("pattern", CoupledChannels())
    method: dict[str, Any] = {
        "name": "mine",
        "start": "initialisation",
        "pattern": pattern,
        "scope": "global",
        "schedule": {"kind": "linear", "levels": 3},
        "rewind": {"to": "none"},
        "stop": {"rule": "fixed-budget", "passes": 0},
        **changes.pop("method", {}),
    }
    settings = {"density": 0.5, "final": {"passes": 0}, "execution": {"device": "cpu"}, **changes}
    return infcop.search(
        net() if model is None else model,
        infcop.Classification(data, data),
        run_dir=folder,
        method=MethodConfig.model_validate(method),
        **settings,
    )


def prices(model: nn.Module, density_in: str) -> Prices:
    names = find_prunable(model).names
    if density_in == "parameters":
        return Prices(dict.fromkeys(names, 1.0))
    found = multiply_adds(model, (batches(*SHAPE)[0][0],))
    own = {name: found.by_module[name.removesuffix(".weight")] for name in names}
    each = {name: count / model.get_parameter(name).numel() for name, count in own.items()}
    return Prices(each, found.total - sum(own.values()))


def collapsed(result: infcop.Result) -> nn.Module:
    return compact(result.model, result.masks, (batches(*SHAPE)[0][0],)).model


@pytest.mark.parametrize(
    ("density_in", "reduce"), [("parameters", "mean"), *(("flops", r) for r in get_args(Reduce))]
)
def test_a_search_prunes_level_by_level_what_the_twin_says(
    tmp_path: Path, reduce: Any, density_in: str
) -> None:
    with warnings.catch_warnings():
        # These channels are wide: at the end the size is as near as they let it.
        warnings.simplefilter("ignore", InfcopWarning)
        result = search(tmp_path, pattern=CoupledChannels(reduce=reduce), density_in=density_in)
    model = net()
    names = find_prunable(model).names
    groups = channel_groups(model, (batches(*SHAPE)[0][0],), names)
    cost = prices(model, density_in)
    scores = {name: model.get_parameter(name).detach().abs() for name in names}
    masks = Masks.full({name: tuple(scores[name].shape) for name in names})
    assert groups.count == 6 + 8 + 7
    levels = result.record.levels if density_in == "parameters" else result.record.levels[:-1]
    assert levels
    for number, level in enumerate(levels, start=1):
        kept = masks.total - (masks.total - round(0.5 * masks.total)) * number // 3
        own = slow_normalised(slow_scores(groups, reduce, scores, masks), groups)
        alive = [group for group in range(groups.count) if own[group] == own[group]]
        order = sorted(alive, key=lambda group: own[group])
        best = {int(groups.classes[group]): group for group in order}
        order = [group for group in order if group not in best.values()]
        masks = slow_shrink(order, masks, groups, cost, kept / masks.total)
        assert level.kept_per_layer == masks.kept_per_layer
        assert level.size is None
    if density_in == "parameters":
        assert result.masks <= masks
        assert masks <= result.masks
        return
    inputs = (batches(*SHAPE)[0][0],)
    left = multiply_adds(collapsed(result), inputs).total / multiply_adds(model, inputs).total
    assert result.record.levels[-1].size == pytest.approx(left)
    assert left == pytest.approx(0.5, abs=0.05)


class Excluded(nn.Module):
    """Two layers that are added up, and one that reads both."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 32, 3, padding=1)
        self.main, self.down = (nn.Conv2d(32, 96, 3, 2, bias=False) for _ in range(2))
        self.last = nn.Linear(96, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        logits: Tensor = self.last((self.main(x) + self.down(x)).relu().mean((2, 3)))
        return logits


class Tied(nn.Module):
    """One weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 40, 3, padding=1)
        self.one, self.other = (nn.Conv2d(40, 40, 3, padding=1) for _ in range(2))
        self.other.weight = self.one.weight
        self.last = nn.Linear(40, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(self.first(x).relu())[:, :, ::2, ::2].relu()
        logits: Tensor = self.last(self.other(x).relu().mean((2, 3)))
        return logits


@pytest.mark.parametrize("schedule", [{"kind": "linear", "levels": 3}, "one-shot"])
@pytest.mark.parametrize(
    ("make", "exclude"), [(Excluded, ["down.weight"]), (Tied, []), (Excluded, ["first"])]
)
def test_the_multiply_adds_are_those_of_the_collapsed_network(
    tmp_path: Path, make: type[nn.Module], exclude: list[str], schedule: Any
) -> None:
    """Also where weights shrink that are not pruned, or take part in several products."""
    torch.manual_seed(0)
    model = make()
    method = {"exclude": exclude, "schedule": schedule}
    result = search(tmp_path, model=model, density=0.6, density_in="flops", method=method)
    inputs = (batches(*SHAPE)[0][0],)
    left = multiply_adds(collapsed(result), inputs).total / multiply_adds(model, inputs).total
    assert result.record.levels[-1].size == pytest.approx(left)
    assert left == pytest.approx(0.6, abs=0.01)


class Functional(Excluded):
    """A weight that another module computes with."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = nn.functional.conv2d(x, self.main.weight, stride=2)
        logits: Tensor = self.last(x.relu().mean((2, 3)))
        return logits


def test_a_weight_without_a_price_is_refused(tmp_path: Path) -> None:
    model = Functional()
    with pytest.raises(PruningError, match=r"needs the multiply-adds of 'main\.weight'"):
        search(tmp_path, model=model, density_in="flops")


@pytest.mark.parametrize("scope", ["global", "uniform"])
@pytest.mark.parametrize("density", [0.7, 0.4])
@pytest.mark.parametrize("density_in", ["parameters", "flops"])
def test_the_density_is_that_of_the_network_that_is_left(
    tmp_path: Path, scope: str, density: float, density_in: str
) -> None:
    wide = wide_net()
    result = search(
        tmp_path, model=wide, method={"scope": scope}, density=density, density_in=density_in
    )
    small = collapsed(result)
    for name, mask in result.masks.items():
        assert small.get_parameter(name).numel() == int(mask.sum())
    if density_in == "parameters":
        reached = result.outcome.density
    else:
        inputs = (batches(*SHAPE)[0][0],)
        reached = multiply_adds(small, inputs).total / multiply_adds(wide, inputs).total
        assert result.record.levels[-1].size == pytest.approx(reached, abs=1e-3)
    assert density - 0.01 < reached <= density


def timed_by_multiply_adds(monkeypatch: pytest.MonkeyPatch, power: float, noise: float) -> None:
    """Let time follow from the size alone, so that nothing depends on the machine."""
    turns = iter(range(1000))

    def part(clock: Any, masks: Masks, patience: int = 1) -> float:
        size = clock._run.groups.counted(masks) / masks.total
        wrong = noise if next(turns) in (1, 2) else 0.0
        return float(0.1 + 0.9 * size**power + wrong)

    monkeypatch.setattr("infcop.pipeline.masks_for_size._Clock.part_of_dense", part)


@pytest.mark.parametrize("power", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_density_may_be_one_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, power: float, noise: float
) -> None:
    timed_by_multiply_adds(monkeypatch, power, noise)
    result = search(tmp_path, model=wide_net(), density=0.6, density_in="latency")
    *before, last = result.record.levels
    assert before
    assert all(level.size is None for level in before)
    assert last.size == pytest.approx(0.6, abs=0.01)


def test_a_time_that_can_not_be_had_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed_by_multiply_adds(monkeypatch, 1.0, 0.0)
    with pytest.raises(PruningError, match=r"no network that takes 0\.1001 "):
        search(tmp_path, density=0.1001, density_in="latency", method={"schedule": "one-shot"})


def test_the_nearest_time_is_taken_where_none_is_near_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "infcop.pipeline.masks_for_size._Clock.part_of_dense",
        lambda clock, masks, patience=1: 0.9 if masks.density > 0.4 else 0.45,
    )
    with pytest.warns(InfcopWarning, match="goes on with one that takes 0.450"):
        result = search(tmp_path, density=0.6, density_in="latency")
    assert result.record.levels[-1].size == 0.45


def test_networks_are_really_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infcop.pipeline.masks_for_size._TOLERANCE", 10.0)
    monkeypatch.setattr("infcop.pipeline.masks_for_size._SECONDS", 0.0)
    result = search(tmp_path, density=0.6, density_in="latency")
    assert result.record.levels[-1].size > 0


def test_a_search_that_goes_on_finds_the_same(tmp_path: Path) -> None:
    whole = search(tmp_path / "whole", density_in="flops", final={"passes": 1})
    again = search(tmp_path / "whole", density_in="flops", final={"passes": 1})
    assert whole.record == again.record
    other = search(tmp_path / "other", density_in="flops", final={"passes": 1})
    assert other.outcome.kept == whole.outcome.kept
    assert other.outcome.sparse == whole.outcome.sparse


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"pattern": "channel", "density_in": "flops"}, ConfigError, "needs method.pattern"),
        ({"density_in": "flop"}, ConfigError, "did you mean 'flops'"),
        ({"density_in": "flops", "milestones": [0.8]}, ConfigError, "leave them out"),
        (
            {"density_in": "flops", "method": {"schedule": {"kind": "sap"}}},
            ConfigError,
            "a schedule that counts",
        ),
        ({"density": 0.001}, PruningError, "ask for a higher density"),
        ({"method": {"scope": "erk"}}, PruningError, "belong to several layers"),
        ({"method": {"exclude": ["head", "outer", "side", "depthwise"]}}, PruningError, "excluded"),
    ],
)
def test_what_can_not_be_is_refused_before_training(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        search(tmp_path, **changes)
    assert not (tmp_path / "checkpoints" / "latest.safetensors").exists()
