"""The one place where masks are enforced."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from infcop.core.mask import Masks
from infcop.core.names import did_you_mean
from infcop.errors import PruningError

__all__ = ["MaskEnforcer"]

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""The integer type as wide as a floating-point one, by bytes."""

_PIECE = 2**19
"""Values masked together on the CPU. There the bytes are widened into a copy first: one that stays
in the cache is several times faster than one of a large layer, and takes no memory to speak of."""


class MaskEnforcer:
    """Keeps pruned entries at exactly zero while a model is trained.

    Around each optimiser step::

        loss.backward()
        enforcer.mask_gradients()   # before clipping, so that pruned entries do not count
        optimizer.step()
        enforcer.apply()

    With an optimiser that is fresh after pruning, momentum and moment estimates of pruned entries
    then stay exactly zero too. Nothing is left on the model: no hook, buffer or parametrization.

    A value is masked by AND-ing its bits with all ones or all zeros, which a byte a value says: it
    costs little more than multiplying by a mask four times as large, and the result is +0.0
    whatever was there, also for negative numbers, infinities and NaN.

    Args:
        parameters: At least the parameters that the masks name, for instance
            ``dict(model.named_parameters())``. A shared parameter is masked once, under one name.
        masks: What to keep. Copies of a byte an entry are held on the devices of the parameters,
            so build the enforcer after the model was moved.

    Raises:
        PruningError: A parameter is missing or of another shape than its mask.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> masks = Masks({"weight": torch.tensor([[True, False]])})
        >>> enforcer = MaskEnforcer(dict(layer.named_parameters()), masks)
        >>> enforcer.apply()
        >>> layer.weight[0, 1].item()
        0.0
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], masks: Masks) -> None:
        for name, mask in masks.items():
            _check_parameter(name, parameters, mask)
        self._parameters = {name: parameters[name] for name in masks}
        self._bits = {name: _bit_mask(parameters[name], mask) for name, mask in masks.items()}

    def apply(self) -> None:
        """Set the pruned weights to zero."""
        for name, parameter in self._parameters.items():
            _and_bits(parameter, self._bits[name])

    def mask_gradients(self) -> None:
        """Set the gradients of the pruned weights to zero, also where they are NaN.

        Parameters without a gradient are passed over.

        Raises:
            PruningError: A gradient is a sparse tensor.
        """
        for name, parameter in self._parameters.items():
            if parameter.grad is None:
                continue
            if parameter.grad.layout != torch.strided:
                raise PruningError(
                    f"MaskEnforcer.mask_gradients: expected a dense gradient of '{name}', got "
                    f"layout {parameter.grad.layout}; build its layer with sparse=False"
                )
            _and_bits(parameter.grad, self._bits[name])

    def check(self) -> None:
        """Assert that the pruned weights are zero.

        Raises:
            PruningError: One is not; something has written to the weights since ``apply``.
        """
        for name, parameter in self._parameters.items():
            revived = int((parameter.detach()[self._bits[name] == 0] != 0).count_nonzero())
            if revived:
                raise PruningError(
                    f"MaskEnforcer.check: expected pruned entries of '{name}' to be zero, but "
                    f"{revived} are not; call apply() after everything that writes to the weights"
                )


def _check_parameter(name: str, parameters: Mapping[str, nn.Parameter], mask: Tensor) -> None:
    if name not in parameters:
        raise PruningError(
            f"MaskEnforcer: expected a parameter '{name}' for the mask of that name, got none; "
            f"{did_you_mean(name, parameters)}"
        )
    if parameters[name].shape != mask.shape:
        raise PruningError(
            f"MaskEnforcer: expected a mask of shape {tuple(parameters[name].shape)} for '{name}', "
            f"got {tuple(mask.shape)}; load the masks that belong to this model"
        )


def _bit_mask(parameter: nn.Parameter, mask: Tensor) -> Tensor:
    """Return -1 (all bits set) where the mask is true and 0 elsewhere, laid out as the weights."""
    return torch.empty_like(parameter.detach(), dtype=torch.int8).copy_(mask).neg_()


def _and_bits(values: Tensor, bits: Tensor) -> None:
    # The sign of the byte extends to the width of the value.
    whole = values.detach().view(_BITS[values.itemsize])
    if whole.numel() <= _PIECE or whole.device.type != "cpu":
        whole.bitwise_and_(bits)
        return
    rows = max(1, _PIECE * len(whole) // whole.numel())
    for part, own in zip(torch.split(whole, rows), torch.split(bits, rows), strict=True):
        part.bitwise_and_(own)
