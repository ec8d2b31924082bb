"""Importance scores: pure functions of tensors. Add a function and a line here to add a score."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from infcop.scoring.magnitude import magnitude

__all__ = ["SCORES", "ScoreFn"]

ScoreFn = Callable[[Tensor, Tensor | None, Tensor], Tensor]
"""``score(weight, grad, mask)``: all of one shape, as is the result. The higher, the more it
matters; what it says of pruned entries is never looked at."""

SCORES: dict[str, ScoreFn] = {"magnitude": magnitude}
"""Every score by the name that ``method.score`` knows it by."""
