"""A network of absolute values, through which synaptic flow runs."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from infcop.errors import PruningError
from infcop.models.calling import Inputs
from infcop.models.nested import described, mapped, tensors_in
from infcop.models.undisturbed import set_mode

__all__ = ["ones_like_one", "positive_copy", "without_shifts"]


@torch.no_grad()
def positive_copy(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    r"""Return a copy in evaluation mode with all parameters and buffers made positive.

    Absolute values everywhere (Tanaka et al. 2020, arXiv 2006.05467, algorithm 1); integer buffers
    stay. Normalisation by running statistics becomes the positive scale
    :math:`|\gamma| / \sqrt{\sigma^2 + \epsilon}`, with mean and shift 0. At initialisation that is
    what it is anyway; of a trained network it leaves out what has no sign to rely on: absolute
    values of means would be subtracted.

    Args:
        model: Any model, which is left as it is.
        dtype: What to convert the copy to; on the CPU where its device has no float64.

    Raises:
        PruningError: A parameter is not finite or not real, or the model can't be copied.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> bool((positive_copy(model).weight >= 0).all())
        True
    """
    _check_parameters(model)
    try:
        copy = deepcopy(model)
    except Exception as error:  # whatever the user's modules raise
        raise PruningError(
            "score 'synflow': expected a model that can be copied, but copy.deepcopy says: "
            f"{error}; let it hold no tensors that were computed from others"
        ) from error
    if dtype is not None:
        if any(parameter.device.type == "mps" for parameter in copy.parameters()):
            copy = copy.cpu()
        copy = copy.to(dtype)
    set_mode(copy, train=False)
    for module in copy.modules():
        mean = getattr(module, "running_mean", None)
        if isinstance(mean, Tensor):
            mean.zero_()
            shift = getattr(module, "bias", None)
            if isinstance(shift, Tensor):
                shift.zero_()
    for tensor in (*copy.parameters(), *copy.buffers()):
        # An expanded buffer can't be written to, and rarely has to be.
        if tensor.is_floating_point() and bool((tensor < 0).any()):
            tensor.abs_()
    return copy


@torch.no_grad()
def without_shifts(model: nn.Module) -> None:
    """Set every bias of a model to zero, in place.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> without_shifts(model)
        >>> model.bias.item()
        0.0
    """
    for module in model.modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None and (name.startswith("bias") or name.endswith("bias")):
                tensor.zero_()


def ones_like_one(inputs: Inputs, dtype: torch.dtype | None = None) -> Any:
    """Return ones in the shape of a single example, ready for gradients.

    Args:
        inputs: What the model is called with for a batch; only shapes and types are looked at.
        dtype: Their type, on the CPU where the device has no float64; by default as it is.

    Raises:
        PruningError: There is no tensor, or one that is not floating point.

    Example:
        >>> ones_like_one((torch.zeros(5, 2),))
        (tensor([[1., 1.]], requires_grad=True),)
    """
    given = dict(inputs) if isinstance(inputs, Mapping) else inputs
    found = list(tensors_in(given))
    if not found or not all(tensor.is_floating_point() for tensor in found):
        raise PruningError(
            "score 'synflow': expected floating-point inputs, for which ones can be put in, got "
            f"{described(given) or 'nothing'}; use a score that looks at data"
        )

    def ones(tensor: Tensor) -> Tensor:
        lacking = dtype is not None and tensor.device.type == "mps"
        return torch.ones(
            (1, *tensor.shape[1:]) if tensor.ndim else (),
            dtype=dtype or tensor.dtype,
            device="cpu" if lacking else tensor.device,
            requires_grad=True,
        )

    return mapped(given, ones)


def _check_parameters(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.is_complex() or not bool(parameter.detach().isfinite().all()):
            got = "complex numbers" if parameter.is_complex() else "NaN or infinity"
            raise PruningError(
                f"score 'synflow': expected real and finite parameters, got {got} in '{name}'; "
                "prune a network that has not diverged"
            )
