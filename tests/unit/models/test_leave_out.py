from __future__ import annotations

import pytest
from torch import nn

from infcop.errors import ConfigError
from infcop.models.leave_out import leave_out
from infcop.models.prunable import find_prunable


class Wide(nn.Linear):
    """A layer whose class is the user's own."""


def network() -> nn.Module:
    block = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1))
    return nn.Sequential(nn.Conv2d(1, 2, 3), block, nn.Flatten(), Wide(8, 4), nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        ([], ["0.weight", "1.0.weight", "1.2.weight", "3.weight", "4.weight"]),
        (["first"], ["1.0.weight", "1.2.weight", "3.weight", "4.weight"]),
        (["first", "last"], ["1.0.weight", "1.2.weight", "3.weight"]),
        (["Conv2d"], ["3.weight", "4.weight"]),
        (["Linear"], ["0.weight", "1.0.weight", "1.2.weight"]),
        (["Wide"], ["0.weight", "1.0.weight", "1.2.weight", "4.weight"]),
        (["1.*"], ["0.weight", "3.weight", "4.weight"]),
        (["1.2", "4.weight"], ["0.weight", "1.0.weight", "3.weight"]),
    ],
)
def test_patterns(patterns: list[str], left: list[str]) -> None:
    model = network()
    found = leave_out(model, find_prunable(model), patterns)
    assert list(found.names) == left
    assert set(found.shapes) == set(left)
    names = {name for name, _ in model.named_parameters()}
    assert set(found.excluded) == names - set(left)


@pytest.mark.parametrize(
    ("patterns", "says"),
    [
        (["fist"], "did you mean 'first'"),
        (["Conv1d"], "names no prunable layer"),
        (["1.1"], "names no prunable layer"),
        (["conv2d"], "names no prunable layer; did you mean 'Conv2d'"),
        (["Module"], "names no prunable layer"),
        (["Conv2d", "Linear"], "all 5 prunable weights are left out"),
    ],
)
def test_what_names_nothing_or_everything(patterns: list[str], says: str) -> None:
    model = network()
    with pytest.raises(ConfigError, match=says):
        leave_out(model, find_prunable(model), patterns)


def test_the_words_win_over_layers_of_the_same_names() -> None:
    model = nn.Sequential()
    for name in ("start", "first", "end"):
        model.add_module(name, nn.Linear(2, 2))
    found = find_prunable(model)
    assert leave_out(model, found, ["first"]).names == ("first.weight", "end.weight")
    assert leave_out(model, found, ["first.weight"]).names == ("start.weight", "end.weight")
