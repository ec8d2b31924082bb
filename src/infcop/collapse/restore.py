"""Writing the values of a smaller network back to where they were."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from infcop.collapse.compact import Compact
from infcop.collapse.exported import entries_of
from infcop.errors import CollapseError
from infcop.models.unwrap import unwrapped

__all__ = ["restore_into"]


def restore_into(model: nn.Module, compact: Compact) -> None:
    """Write the values of a smaller network to their places in a model of the original size.

    Entries that were removed stay as they are in ``model``. Where a bias has taken over constants,
    these are subtracted again, so that the masked model then does the same as the smaller network.
    Then what was removed has to be what ``compact`` was given: it makes these constants.

    Args:
        model: A model of the class and sizes that ``compact`` was made from; changed in place.
        compact: The smaller network, perhaps trained since.

    Raises:
        CollapseError: The model has other parameters or sizes, or a bias that the original has not
            was changed, or constants were folded that the model would not make. Nothing is written
            then.

    Example:
        >>> from infcop.collapse import compact
        >>> from infcop.core.mask import Masks
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> masks = Masks({"1.weight": torch.tensor([[True, False, True]])})
        >>> small = compact(model, masks, (torch.randn(4, 2),))
        >>> with torch.no_grad():
        ...     _ = small.model[0].bias.fill_(7.0)
        >>> restore_into(model, small)
        >>> (model[0].bias == 7).tolist()
        [True, False, True]
    """
    model = unwrapped(model)
    target, source = entries_of(model), entries_of(compact.model)
    for name, kept in compact.kept.items():
        _check(name, target, source, kept)
    for name in compact.new_biases:
        if not torch.equal(source[name].detach().cpu().double(), compact.folded[name].double()):
            raise CollapseError(
                f"restore_into: expected '{name}' as compact made it, got another; the original "
                "has no such bias, so leave it untrained (requires_grad=False)"
            )
    changed = [] if compact.removed is None else compact.removed.changed(target)
    if changed:
        raise CollapseError(
            f"restore_into: expected what was removed of '{changed[0]}' to be as compact was given "
            "it, got something else; it makes the constants that biases have taken over, so pass "
            "the original model or a copy of it, or collapse with fold=False"
        )
    with torch.no_grad():
        for name, kept in compact.kept.items():
            value = source[name].detach()
            if name in compact.folded:
                value = value.double() - compact.folded[name].to(value.device)
            _write(target[name], value, kept)


def _check(
    name: str,
    target: dict[str, Tensor],
    source: dict[str, Tensor],
    kept: tuple[Tensor | None, ...],
) -> None:
    if name not in target:
        raise CollapseError(
            f"restore_into: expected a model with '{name}', got one without; pass a model of the "
            "class that compact was given"
        )
    shape = target[name].shape
    fits = len(shape) == len(kept) and all(
        size == left if places is None else size > int(places.max()) and len(places) == left
        for size, places, left in zip(shape, kept, source[name].shape, strict=False)
    )
    if not fits:
        raise CollapseError(
            f"restore_into: expected '{name}' in its original size, got {tuple(shape)}, which "
            f"{tuple(source[name].shape)} was not taken from; pass a model of the original sizes"
        )


def _write(target: Tensor, value: Tensor, kept: tuple[Tensor | None, ...]) -> None:
    value = value.to(target)
    if all(places is None for places in kept):
        target.copy_(value)
        return
    grid = torch.meshgrid(
        *(
            torch.arange(size) if places is None else places
            for size, places in zip(target.shape, kept, strict=True)
        ),
        indexing="ij",
    )
    target[tuple(at.to(target.device) for at in grid)] = value
