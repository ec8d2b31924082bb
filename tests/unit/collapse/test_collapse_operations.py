"""Every rule is reached by a small model, and what comes of it is right."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from infcop.collapse import compact
from infcop.collapse.rules import RULES
from tests.reference.collapse import agrees, random_masks, spared
from tests.reference.collapse_operations import CASES

run_module = importlib.import_module("infcop.collapse.run")


class Case(nn.Module):
    """A convolution, the operation, and a linear layer over what it makes of the channels."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.between = nn.Conv2d(2, 8, 1), between
        with torch.no_grad():
            width = between(self.first(torch.zeros(4, 2, 4, 4)).double()).shape[1]
        self.last = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(x)).movedim(1, -1))


def test_every_rule_has_a_case() -> None:
    assert set(CASES) == set(RULES)


@pytest.mark.parametrize("name", CASES)
def test_a_rule_is_reached_and_right(name: str, monkeypatch) -> None:
    reached = set()
    rule_for = run_module.rule_for

    def noted(operation: str, target: Any) -> Any:
        reached.add(operation)
        return rule_for(operation, target)

    monkeypatch.setattr(run_module, "rule_for", noted)
    torch.manual_seed(0)
    model = Case(CASES[name])
    if name != "to":  # which is of no effect in float64
        model = model.double()
    model = model.eval()
    own = model.first.weight.dtype
    masks = dict(random_masks(model, 0.5, 1))
    masks["first.weight"][[2, 5]] = False  # constants
    masks["last.weight"][:, [0, -1]] = False  # perhaps dead
    small = compact(model, masks, (torch.randn(4, 2, 4, 4, dtype=own),))
    assert name in reached
    assert not spared(small)
    if own == torch.float64:
        assert agrees(model, masks, small, torch.randn(4, 2, 4, 4, dtype=own))
