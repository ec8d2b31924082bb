"""Which units survive: those that are needed, and those that hold the shape of what is needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from infcop.collapse.facts import Coupling, Facts

__all__ = ["Survivors", "kin", "survivors"]


@dataclass(frozen=True, eq=False)
class Survivors:
    """The units that stay.

    Attributes:
        root: For each unit the first one of those that live and die together with it.
        needed: Whether a unit is needed for the outputs.
        alive: Whether it stays, because it is needed or because tensors have to stay blocks.
    """

    root: Tensor
    needed: Tensor
    alive: Tensor


def survivors(
    facts: Facts,
    pinned: Iterable[Tensor] = (),
    couplings: Iterable[Coupling] = (),
    fold: bool = True,
) -> Survivors:
    """Find the fewest units that have to stay.

    A unit is needed if the output, an operation that can't lose it, or a needed unit uses it: a
    walk from the outputs to the inputs finds all, and so nothing has to be repeated when a layer
    becomes dead only because another one has gone. Then units are added until the survivors of
    every tensor form a block and there is at least one along each dimension.

    Constant units are left to biases with two exceptions, after which all is done again: a unit
    that stays in any case is needed, and so is one that is made of a constant that stays. The
    surviving parameters then have all the influence that they had.

    Args:
        facts: What a run has found out.
        pinned: Further units that have to stay, with what they need.
        couplings: Further couplings.
        fold: Whether biases take over constants other than zero.

    Example:
        >>> facts = Facts()
        >>> units = facts.fresh((3,))
        >>> facts.use(units[1], torch.tensor(0))
        >>> survivors(facts).alive.tolist()
        [True, False, True, False]
    """
    stay = [ids.reshape(-1) for ids in (*facts.pinned, *pinned)]
    held = [torch.stack([ids, torch.zeros_like(ids)]) for ids in stay]
    root = _roots(facts.count, _together([*facts.same, *held]))
    uses = root[_together(facts.uses if fold else [*facts.uses, *facts.adds])]
    folds = root[_together([*facts.folds, *facts.adds] if fold else facts.folds)]
    constants = root[_together(facts.constants)]
    blocks = _distinct([*facts.couplings, *couplings], root)
    needed = torch.zeros(facts.count, dtype=torch.bool)
    needed[0] = True
    # What any unit will do for is chosen last: one that stays for another reason may do.
    for at_least_one in (False, True):
        missed = torch.zeros(1, dtype=torch.int64)
        while len(missed):
            needed[missed] = True
            needed = _reached(needed, uses)
            alive = _in_blocks(needed, blocks, at_least_one=at_least_one)
            missed = _not_to_fold(needed, alive, folds, constants)
    return Survivors(root, needed[root], alive[root])


def kin(facts: Facts, further: Sequence[Tensor] = ()) -> Tensor:
    """Return for each unit the first one that it is tied to, pinned or not.

    Args:
        facts: What a run has found out.
        further: More pairs to tie, ``[2, pairs]``.
    """
    return _roots(facts.count, _together([*facts.same, *further]))


def _together(pairs: Sequence[Tensor]) -> Tensor:
    return torch.cat([torch.zeros((2, 0), dtype=torch.int64), *pairs], dim=1)


def _roots(count: int, pairs: Tensor) -> Tensor:
    """Return for each unit the smallest one that it is connected with."""
    root = torch.arange(count)
    one, other = pairs
    while True:
        lower = torch.minimum(root[one], root[other])
        new = root.clone()
        for ends in (root[one], root[other]):
            new.scatter_reduce_(0, ends, lower, "amin")
        new = new[new]
        if torch.equal(new, root):
            return root
        root = new


def _reached(needed: Tensor, uses: Tensor) -> Tensor:
    """Add the units that needed ones use, and those that these use."""
    unit, user = uses
    needed = needed.clone()
    while True:
        new = unit[needed[user] & ~needed[unit]]
        if not len(new):
            return needed
        needed[new] = True


def _not_to_fold(needed: Tensor, alive: Tensor, folds: Tensor, constants: Tensor) -> Tensor:
    """Return the constant units that no bias may take over."""
    unit, user = folds
    staying = unit[alive[unit] & ~needed[unit] & needed[user]]
    folded = torch.zeros_like(alive)
    folded[unit[~alive[unit] & needed[user]]] = True
    part, whole = constants
    made = _reached(folded, constants)
    missed: Tensor = whole[alive[part] & made[whole] & ~alive[whole]]
    # With these others may not have to stay.
    return missed if len(missed) else staying


def _distinct(couplings: Sequence[Coupling], root: Tensor) -> list[Coupling]:
    """Return each coupling once, in terms of roots."""
    found: dict[object, Coupling] = {}
    for coupling in couplings:
        layers = tuple((axes, root[ids]) for axes, ids in coupling.layers)
        key = (coupling.sizes, tuple((axes, ids.numpy().tobytes()) for axes, ids in layers))
        found.setdefault(key, Coupling(coupling.sizes, layers))
    return list(found.values())


def _in_blocks(needed: Tensor, couplings: Sequence[Coupling], *, at_least_one: bool) -> Tensor:
    """Add units until the survivors of each coupling form a block, perhaps not an empty one."""
    alive = needed.clone()
    held = [torch.unique(torch.cat([x.reshape(-1) for _, x in one.layers])) for one in couplings]
    units = torch.cat([*held, torch.zeros(0, dtype=torch.int64)])
    holders = torch.cat(
        [torch.full_like(one, number) for number, one in enumerate(held)] or [units]
    )
    waiting = dict.fromkeys(range(len(couplings)))
    # One after the other, and only when nothing else follows: what is empty now may be filled by
    # another coupling.
    empty = iter(couplings if at_least_one else ())
    while True:
        if waiting:
            number, _ = waiting.popitem()
            added = _filled(couplings[number], alive)
        elif (coupling := next(empty, None)) is not None:
            added = _filled(coupling, alive, at_least_one=True)
        else:
            return alive
        if len(added):
            waiting |= dict.fromkeys(holders[torch.isin(units, added)].tolist())


def _filled(coupling: Coupling, alive: Tensor, at_least_one: bool = False) -> Tensor:
    """Let the block of a coupling live; return the units that this adds."""
    block = _block(coupling, alive)
    if at_least_one:
        block = [places if len(places) else torch.zeros(1, dtype=torch.int64) for places in block]
    new = [torch.zeros(0, dtype=torch.int64)]
    for axes, ids in coupling.layers:
        inside = ids
        for at, axis in enumerate(axes):
            inside = inside.index_select(at, block[axis])
        added = torch.unique(inside[~alive[inside]])
        alive[added] = True
        new.append(added)
    return torch.cat(new)


def _block(coupling: Coupling, alive: Tensor) -> list[Tensor]:
    """Return, per dimension, which positions have a survivor."""
    kept = [torch.zeros(size, dtype=torch.bool) for size in coupling.sizes]
    for axes, ids in coupling.layers:
        living = alive[ids]
        for at, axis in enumerate(axes):
            others = tuple(d for d in range(len(axes)) if d != at)
            kept[axis] = kept[axis] | (living.any(dim=others) if others else living)
    return [one.nonzero()[:, 0] for one in kept]
