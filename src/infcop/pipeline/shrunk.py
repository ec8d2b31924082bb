"""A smaller network that is trained in place of the masked one, and is the same training."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from infcop.collapse import compact, restore_into
from infcop.collapse.compact import Compact
from infcop.collapse.exported import entries_of
from infcop.collapse.plan import sliced
from infcop.core.mask import Masks
from infcop.masking.apply import MaskEnforcer
from infcop.models.calling import Inputs
from infcop.rewinding.snapshot import Snapshot
from infcop.scoring.movement import MovementSum
from infcop.training.engine import Engine

__all__ = ["Shrunk", "shrink_network"]


class Shrunk:
    """A smaller network with the present values of a model, which it gives back when asked to.

    What was removed has no influence on the outputs, and its gradients are zero, but an optimiser
    decays weights all the same, and later levels are pruned by them. So these entries are
    parameters of the smaller network too, which nothing reads.

    Args:
        model: The model at its full size, with masked weights; it changes in :meth:`put_back` only.
        found: The smaller network, made without folding.
        masks: What survives.
        engine: Wraps the network for training.
        movement: The sums of the model, if where its weights move is added up.

    Attributes:
        trained: What to train.
        size: Its parameters, without those that nothing reads.
        leaves_statistics: Whether statistics were removed that training would have changed, since
            the inputs still reach them.
    """

    def __init__(
        self,
        model: nn.Module,
        found: Compact,
        masks: Masks,
        engine: Engine,
        movement: MovementSum | None = None,
    ) -> None:
        self._model, self._compact = model, found
        self._whole, self._own = entries_of(model), entries_of(found.model)
        self.size = sum(parameter.numel() for parameter in found.model.parameters())
        self.enforcer = MaskEnforcer(dict(found.model.named_parameters()), found.masks)
        self._sums, self._movement = movement, None
        if movement is not None:
            small = {name: found.model.get_parameter(name) for name in masks}
            self._movement = MovementSum(small)
        self._removed: dict[str, tuple[nn.Parameter, tuple[Tensor, ...]]] = {}
        reached = False
        for name, parameter in model.named_parameters():
            places = self._removed_places(name, parameter, masks.get(name))
            if len(places[0]):
                # A weight, not just the bias of a constant.
                reached |= parameter.ndim > 1
                self._train_along(name, parameter, places)
        self.leaves_statistics = reached and any(
            buffer.is_floating_point() and buffer.numel() > self._own[name].numel()
            for name, buffer in model.named_buffers()
        )
        self.take_values()
        self.trained = engine.wrap(found.model)

    @torch.no_grad()
    def take_values(self) -> None:
        """Begin with the present values of the model."""
        for name, kept in self._compact.kept.items():
            self._own[name].copy_(sliced(self._whole[name], kept))
        for name, (removed, places) in self._removed.items():
            removed.copy_(self._whole[name][places])
        if self._sums is not None and self._movement is not None:
            kept_of = self._compact.kept
            sums = self._sums.values()
            self._movement.load({name: sliced(sums[name], kept_of[name]) for name in sums})

    def before_step(self, *, moving: bool) -> None:
        """Mask the gradients, after ``backward``; add up where weights move if asked to."""
        for name, (removed, _) in self._removed.items():
            # An optimiser passes over a parameter without a gradient; it does so with all of it.
            if self._own[name].grad is not None and removed.grad is None:
                removed.grad = torch.zeros_like(removed)
        self.enforcer.mask_gradients()
        if moving and self._movement is not None:
            self._movement.add()

    @torch.no_grad()
    def put_back(self) -> None:
        """Write all values to their places in the model."""
        restore_into(self._model, self._compact)
        for name, (removed, places) in self._removed.items():
            self._whole[name][places] = removed
        if self._sums is not None and self._movement is not None:
            sums = self._sums.values()
            for name, values in self._movement.values().items():
                sums[name][self._places(name)] = values.flatten()
            self._sums.load(sums)

    def _places(self, name: str) -> tuple[Tensor, ...]:
        """Return where the entries of the smaller network are in the model, in their order."""
        whole = self._whole[name]
        numbers = torch.arange(whole.numel()).reshape(whole.shape)
        flat = sliced(numbers, self._compact.kept[name]).flatten()
        return tuple(at.to(whole.device) for at in torch.unravel_index(flat, whole.shape))

    def _removed_places(
        self, name: str, parameter: nn.Parameter, mask: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Return where entries were removed that are not pruned; those stay zero by themselves."""
        smaller = parameter.numel() > self._own[name].numel()
        gone = torch.full(parameter.shape, smaller, device=parameter.device)
        if smaller:
            gone[self._places(name)] = False
        if mask is not None:
            gone &= mask.to(gone.device)
        return gone.nonzero(as_tuple=True)

    def _train_along(self, name: str, parameter: nn.Parameter, places: tuple[Tensor, ...]) -> None:
        if parameter.requires_grad:
            removed = nn.Parameter(parameter.detach()[places])
            # On the network itself, since some containers run through all modules that they hold.
            self._compact.model.register_parameter(f"_removed_{len(self._removed)}", removed)
            self._removed[name] = (removed, places)


def shrink_network(
    model: nn.Module,
    begun: Mapping[str, Tensor],
    masks: Masks,
    example_inputs: Inputs,
    *,
    engine: Engine,
    movement: MovementSum | None = None,
) -> Shrunk | None:
    """Return the smaller network to train in place of a masked one; None if nothing can go.

    Args:
        model: The model with its present values.
        begun: Earlier values under the same masks. What can go is found with these, so that an
            interrupted training goes on with the same network.
        masks: What survives.
        example_inputs: What the model is called with, for a few examples.
        engine: Wraps the network for training.
        movement: The sums of the model, if where its weights move is added up.

    Raises:
        CollapseError: The model can't be copied, run or traced.
    """
    first = copy.deepcopy(model)
    Snapshot(begun).restore(first, masks)
    found = compact(first, masks, example_inputs, fold=False)
    if all(places is None for kept in found.kept.values() for places in kept):
        return None
    return Shrunk(model, found, masks, engine, movement)
