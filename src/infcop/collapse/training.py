"""Comparing networks in training mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from infcop.collapse.copies import lean_copy
from infcop.collapse.differences import Surviving, buffers_unlike, measured_unlike
from infcop.collapse.measure import Measured, measured, outputs_of
from infcop.collapse.plan import Plan
from infcop.collapse.runs import Run
from infcop.core.mask import Masks

__all__ = ["Training", "fails_to_train"]

_SEEDS = (0, 1)


class Training:
    """What networks do in training mode, without dropout.

    Layers of dropout are turned off, because a smaller network draws fewer numbers. Where numbers
    are drawn still, the smaller network has to run, no more.

    Args:
        masks: What survives of the parameters of the masked network, by name.
        runs: On what networks are compared, in one precision.
    """

    def __init__(self, masks: Masks, runs: Sequence[Run]) -> None:
        self._masks = masks
        self._runs = runs
        self.said = ""
        """For the report: what has been done, or why nothing could be."""

    def refuses(self, large: nn.Module, small: nn.Module, plan: Plan) -> str | None:
        """Say what is wrong with a smaller network; None if it does as the masked one does.

        Args:
            large: The masked network. Like the other it has not been run yet: what counts its
                calls has to start alike.
            small: The smaller one.
            plan: What it keeps.
        """
        surviving = Surviving(self._masks, plan)
        done = []
        dropped = False
        for run in self._runs:
            networks = [lean_copy(one).train() for one in (large, large, small)]
            for network in networks:
                dropped = _without_dropout(network)
            try:
                expected, again = (
                    _seeded(one, run.arguments, seed, surviving.of_masked)
                    for one, seed in zip(networks[:2], _SEEDS, strict=True)
                )
            except Exception as error:
                self.said = f"not in training mode, where the network fails: {_first_line(error)}"
                return None
            try:
                found = _seeded(networks[2], run.arguments, 0, surviving.of_small)
            except Exception as error:
                return f"it fails in training mode: {error}"
            unclear = _incomparable(expected, again)
            if unclear:
                self.said = f"not in training mode, where {unclear}; the smaller network runs there"
                return None
            difference = measured_unlike(expected, found, run.dtype)
            difference = difference or buffers_unlike(networks[0], networks[2], plan, run.dtype)
            if difference:
                return f"{difference} in training mode"
            done.append(str(run))
        without = "without dropout, " if dropped else ""
        self.said = f"{' and '.join(done)}, {without}in training mode"
        return None


def fails_to_train(large: nn.Module, small: nn.Module, arguments: Any) -> str | None:
    """Say why a smaller network does not run in training mode; None if it does.

    A network that does not run there before it is made smaller is no loss: None too.

    Args:
        large: The masked network.
        small: The smaller one.
        arguments: What both are run with.

    Example:
        >>> fails_to_train(nn.Linear(2, 1), nn.Linear(3, 1), ((torch.ones(4, 2),), {}))
        'mat1 and mat2 shapes cannot be multiplied (4x2 and 3x1)'
    """
    try:
        outputs_of(lean_copy(large).train(), arguments)
    except Exception:
        return None
    try:
        outputs_of(lean_copy(small).train(), arguments)
    except Exception as error:
        return _first_line(error)
    return None


def _seeded(
    model: nn.Module, arguments: Any, seed: int, take: Callable[[str, Tensor], Tensor]
) -> Measured:
    torch.manual_seed(seed)
    return measured(model, arguments, take)


def _without_dropout(model: nn.Module) -> bool:
    """Turn layers of dropout off; return whether any was on."""
    found = False
    for module in model.modules():
        if isinstance(module, _DropoutNd) and module.p > 0:
            module.p, found = 0.0, True
        elif isinstance(module, nn.MultiheadAttention | nn.RNNBase) and module.dropout > 0:
            module.dropout, found = 0.0, True
    return found


def _incomparable(expected: Measured, again: Measured) -> str | None:
    if not all(map(torch.equal, expected.outputs, again.outputs)):
        return "the network draws random numbers"
    if not all(bool(x.isfinite().all()) for x in expected.outputs):
        return "the outputs are not finite"
    return None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
