"""The gradient of a loss, where it can be had."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from infcop.models.nodes import has_reentrant_checkpoint

__all__ = ["loss_gradients"]


def loss_gradients(
    loss: Tensor,
    parameters: Mapping[str, Tensor],
    *,
    create_graph: bool = False,
    failed: Callable[[str], Exception],
) -> dict[str, Tensor]:
    """Return the gradient of a batch's mean loss, without touching ``.grad``.

    A parameter that the loss does not use has gradient zero.

    Args:
        loss: What ``task.training_step`` has returned.
        parameters: By which, by name.
        create_graph: Whether the gradient can be differentiated again.
        failed: Makes the error of a sentence that says what was expected.

    Raises:
        Exception: What ``failed`` makes, where the loss is no scalar or has no gradient, or part
            of it is inside a reentrant activation checkpoint.

    Example:
        >>> weight = torch.tensor([2.0], requires_grad=True)
        >>> loss_gradients((weight**2).sum(), {"weight": weight}, failed=ValueError)
        {'weight': tensor([4.])}
    """
    if loss.ndim != 0 or not loss.requires_grad:
        raise failed(
            "expected task.training_step to return a scalar loss with a gradient, got shape "
            f"{tuple(loss.shape)}, requires_grad={loss.requires_grad}; return the mean loss "
            "undetached, computed from trainable parameters and outside of torch.inference_mode"
        )
    if has_reentrant_checkpoint(loss):
        raise failed(
            "expected activation checkpoints with use_reentrant=False, got a reentrant one, which "
            "hides the gradients of the layers inside; change it"
        )
    gradients = torch.autograd.grad(
        loss, list(parameters.values()), create_graph=create_graph, materialize_grads=True
    )
    return dict(zip(parameters, gradients, strict=True))
