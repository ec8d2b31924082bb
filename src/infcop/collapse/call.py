"""One operation of the graph, as its rule sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from infcop.collapse.aten import values_in
from infcop.collapse.exported import Trace
from infcop.collapse.facts import Facts, Layer
from infcop.collapse.folding import Fold
from infcop.collapse.values import Value, plain

__all__ = ["Call", "Rule", "each", "unknown"]


@dataclass(frozen=True, eq=False)
class Call:
    """An operation with its operands and what it gave.

    Attributes:
        operation: Its name in ATen, for instance ``"relu"``.
        arguments: Its arguments by name; tensors are values.
        result: What it gave on the example inputs.
        again: Runs it with other tensors in place of its first one.
        facts: Where facts go.
        folds: Where layers whose bias can take over constants go.
        trace: The graph that it belongs to.
        place: The module that it belongs to, for reports.
        random: Whether it draws random numbers.
    """

    operation: str
    arguments: dict[str, Any]
    result: Any
    again: Callable[..., Any]
    facts: Facts
    folds: list[Fold]
    trace: Trace
    place: str
    random: bool

    def __getitem__(self, name: str) -> Any:
        """Return an argument."""
        return self.arguments[name]

    @property
    def values(self) -> list[Value]:
        """All arguments that are values, in order."""
        return values_in(self.arguments)

    @property
    def shape(self) -> torch.Size:
        """The shape of the result."""
        return torch.Size(self.result.shape)

    def gives(self, layers: Sequence[Layer], varies: Tensor) -> Value:
        """Return the result with its units."""
        return Value(self.result, varies.expand(self.result.shape), tuple(layers))

    def reason(self, what: str) -> str:
        """Return a sentence for the report."""
        where = f"of '{self.place}'" if self.place else "of the model"
        return f"{self.operation} {where} {what}"


Rule = Callable[[Call], Any]
"""Gives a value, or several, for a call."""


_EVEN = frozenset(("zeros", "ones", "full", "empty", "scalar_tensor"))
"""What these make is the same everywhere."""


def unknown(call: Call) -> Any:
    """Keep all units that enter an operation, and give a result that has none.

    What is made of constants counts as varying: it may depend on the sizes of the inputs, as a
    range does.
    """
    values = call.values
    for value in values:
        for layer in value.layers:
            call.facts.pin(layer.ids, call.reason("has no rule"))
    varies = call.random or call.operation not in _EVEN
    return each(call.result, lambda tensor: plain(tensor, varies=varies))


def each(result: Any, change: Callable[[Tensor], Value]) -> Any:
    """Turn every tensor of a result into a value."""
    if isinstance(result, Tensor):
        return change(result)
    if isinstance(result, (list, tuple)):
        return tuple(each(one, change) for one in result)
    return result
