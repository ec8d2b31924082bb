"""What a score was given to judge by."""

from __future__ import annotations

from torch import Tensor

from infcop.errors import PruningError

__all__ = ["required"]


def required(evidence: Tensor | None, kind: str) -> Tensor:
    """Return evidence that is there, outside of autograd.

    Raises:
        PruningError: There is none.

    Example:
        >>> import torch
        >>> required(torch.ones(2, requires_grad=True), "snip")
        tensor([1., 1.])
    """
    if evidence is None:
        raise PruningError(
            f"score '{kind}': expected evidence beside the weights, got none; gather it from the "
            "model first"
        )
    return evidence.detach()
