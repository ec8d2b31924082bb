"""Comparing what an exported program gives with what the network gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from infcop.errors import ExportError
from infcop.export.batches import tensors_of
from infcop.models.batches import resized
from infcop.models.calling import Inputs, call

__all__ = ["TOLERANCE", "Agreement", "agreement", "difference"]

TOLERANCE = 1e-4
"""Largest difference over the largest entry of an output. In float32 about 1e-6 is usual."""


@dataclass(frozen=True)
class Agreement:
    """How well a program does what a network does.

    Attributes:
        batches: The batch sizes that were tried.
        difference: The largest difference, over the largest entry of that output.
    """

    batches: tuple[int, ...]
    difference: float


@torch.no_grad()
def agreement(
    run: Callable[[Inputs], Sequence[Tensor]],
    model: nn.Module,
    inputs: Inputs,
    *,
    examples: int,
    any_batch: bool,
) -> Agreement:
    """Compare a program with a network on a batch, and on a larger one if it takes any.

    Args:
        run: The program; gives the tensors of its output in order.
        model: On the CPU, in evaluation mode.
        inputs: The example inputs.
        examples: How many examples they hold.
        any_batch: Whether the program takes batches of any size.

    Raises:
        ExportError: The outputs differ by more than ``TOLERANCE``.
    """
    sizes = (examples, 2 * examples + 1) if any_batch else (examples,)
    worst = 0.0
    for size in sizes:
        given = inputs if size == examples else resized(inputs, examples, size) or inputs
        expected = tensors_of(call(model, given))
        found = run(given)
        if [tuple(t.shape) for t in found] != [tuple(t.shape) for t in expected]:
            raise ExportError(
                f"the exported program gives outputs of shapes {[tuple(t.shape) for t in found]}, "
                f"the network {[tuple(t.shape) for t in expected]} for a batch of {size}; export "
                "with the inputs that the network is used with"
            )
        pairs = zip(found, expected, strict=True)
        worst = max([worst, *(difference(own, other) for own, other in pairs)])
        if not worst <= TOLERANCE:
            raise ExportError(
                f"the exported program differs from the network by {worst:.2g} of the largest "
                f"output for a batch of {size}; expected at most {TOLERANCE:g}. An operator may "
                "mean something else there: export the masked network, or another format"
            )
    return Agreement(sizes, worst)


def difference(found: Tensor, expected: Tensor) -> float:
    r"""Return :math:`\max |a - b| / \max |b|`, in float64; infinite where that is no number.

    Entries that are not finite have to be the same. If all of ``expected`` is zero, the largest
    difference itself counts.

    Example:
        >>> difference(torch.tensor([1.0, 2.2]), torch.tensor([1.0, 2.0])).__round__(6)
        0.1
        >>> difference(torch.tensor([float("nan")]), torch.tensor([1.0]))
        inf
    """
    own, other = found.detach().double(), expected.detach().double()
    finite = other.isfinite()
    if not torch.equal(own.isfinite(), finite):
        return float("inf")
    odd, known = own[~finite], other[~finite]
    if not bool(((odd == known) | (odd.isnan() & known.isnan())).all()):
        return float("inf")
    apart, size = (own - other)[finite].abs(), other[finite].abs()
    if not apart.numel():
        return 0.0
    largest = float(size.max())
    return float(apart.max()) / (largest or 1.0)
