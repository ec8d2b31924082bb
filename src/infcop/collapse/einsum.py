"""Sums of products: linear layers, convolutions, products of matrices, attention."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from infcop.collapse.facts import Facts, Layer, placed
from infcop.collapse.folding import Fold
from infcop.collapse.join import Operand, agree, join
from infcop.collapse.values import Value

__all__ = ["Contracted", "Labelled", "contract"]


_PINNED = Layer((), torch.zeros((), dtype=torch.int64))
"""Stands for a result without units: it is always needed."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """An operand whose dimensions have letters, as in an Einstein sum."""

    labels: str
    value: Value

    @property
    def layers(self) -> list[Layer]:
        """The units, over letters."""
        return [layer.renamed(dict(enumerate(self.labels))) for layer in self.value.layers]

    @property
    def real(self) -> set[str]:
        """The letters along which it is longer than 1."""
        return {x for x, size in zip(self.labels, self.value.shape, strict=True) if size > 1}

    def any_over(self, flags: Tensor, kept: Collection[str]) -> tuple[Tensor, str]:
        """Reduce flags to the letters in ``kept``."""
        lost = [at for at, label in enumerate(self.labels) if label not in kept]
        labels = "".join(label for label in self.labels if label in kept)
        return (flags.any(dim=lost) if lost else flags), labels


@dataclass(frozen=True, eq=False)
class Contracted:
    """What a contraction gives: units over letters, and what varies along those of the result."""

    layers: list[Layer]
    varies: Tensor


def contract(
    facts: Facts,
    a: Labelled,
    b: Labelled,
    out: str,
    reason: str,
    fold: Fold | None = None,
    apart: str = "",
) -> Contracted:
    """Work out the units of ``sum over k of a[.., k] b[.., k]``.

    Letters that both have and the result has not are summed. A letter of one operand only that the
    result has not can't lose units.

    Args:
        facts: Where facts go.
        a: The first operand; of a layer, its input.
        b: The second one; of a layer, its weight.
        out: The letters of the result, without those that neither operand has.
        reason: What to report where units can't go.
        fold: If ``b`` is the weight of a layer, that layer.
        apart: Letters of one operand over which nothing is summed: the positions that a kernel
            slides over, and what is repeated.
    """
    if b.value.fed and not a.value.fed:
        a, b, fold = b, a, None
    if not b.value.layers:  # a kernel of fixed numbers
        fold = None
    summed = (set(a.labels) & set(b.labels)) - set(out)
    own = [_without_lost(facts, operand, summed | set(out), reason) for operand in (a, b)]
    inner = [[x for x in one if summed & set(x.dims)] for one in own]
    outer = [[x for x in one if not summed & set(x.dims)] for one in own]
    agreed = agree(
        facts,
        [Operand(inner[at], frozenset((a, b)[at].real & summed)) for at in (0, 1)],
        reason,
    )
    slices = _slices(facts, agreed, summed)
    for at in (0, 1):
        outer[at] += [slices[x.dims] for x in inner[at] if x.dims in slices]
    uneven: list[tuple[Tensor, str]] = []
    if not b.value.fed:
        users = [x for x in own[1] if not summed & set(x.dims)]
        for layer in inner[0]:
            readers = users or [slices.get(layer.dims, _PINNED)]
            uneven += _weighed(facts, a, b, layer, readers, summed, fold)
    else:
        for layer in agreed:
            _met(facts, a, b, layer, slices.get(layer.dims, _PINNED))
    layers = join(
        facts,
        [Operand(outer[at], frozenset((a, b)[at].real & set(out))) for at in (0, 1)],
        reason,
    )
    free = [layer for layer in outer[0] if not facts.settled(layer)]
    shared = b.value.learned and any(not set(layer.dims) <= set(b.labels) for layer in free)
    varies = _varying(a, b, out, summed, shared or _counts(a, b, f"{out}{apart}"))
    for flags, grid in uneven:
        lost = [at for at, label in enumerate(grid) if label not in out]
        left = [label for label in grid if label in out]
        varies = varies | placed(flags.any(dim=lost), left, out)
    return Contracted(layers, varies)


def _slices(
    facts: Facts, layers: Sequence[Layer], summed: set[str]
) -> dict[tuple[str, ...], Layer]:
    """Make units for what is left of layers that are summed in part: heads of their dimensions."""
    slices = {}
    for layer in layers:
        left = tuple(dim for dim in layer.dims if dim not in summed)
        if left:
            sizes = [layer.ids.shape[layer.dims.index(dim)] for dim in left]
            slices[layer.dims] = Layer(left, facts.fresh(sizes))
            facts.couple([layer, slices[layer.dims]])
    return slices


def _without_lost(
    facts: Facts, operand: Labelled, known: Collection[str], reason: str
) -> list[Layer]:
    kept = []
    for layer in operand.layers:
        if set(layer.dims) <= set(known):
            kept.append(layer)
        else:
            facts.pin(layer.ids, reason)
    return kept


def _weighed(
    facts: Facts,
    a: Labelled,
    b: Labelled,
    layer: Layer,
    users: Sequence[Layer],
    summed: set[str],
    fold: Fold | None,
) -> Iterator[tuple[Tensor, str]]:
    """Say which outputs need which inputs: those with a surviving weight between them.

    Constant inputs can be folded into a bias if they add the same everywhere. Zeros can always:
    they add nothing, here and after any training.

    Yields:
        Which constant inputs add something to which outputs that differs at the borders. Such an
        output is taken to vary: what it is depends on the size of the inputs.
    """
    units = "".join(layer.dims)
    varies, order = a.any_over(a.value.varies.expand(a.value.shape), units)
    varies = placed(varies, order, units)
    present, _ = a.any_over(a.value.nonzero, units)
    constant = placed(present, order, units) & ~varies
    for user in users:
        weights, weight_labels = b.any_over(b.value.nonzero, summed | set(user.dims))
        grid = "".join(sorted(set(units) | set(weight_labels) | set(user.dims)))
        weights = placed(weights, weight_labels, grid)
        hard = weights & placed(varies, units, grid)
        nonzero = weights & placed(constant, units, grid)
        _link(facts.constant, weights & ~hard, layer, user, grid)
        taken = torch.zeros_like(nonzero)
        if fold is not None and bool(nonzero.any()):
            exact = fold.exact(constant, units, grid)
            if fold.alone is not None:
                yield nonzero & ~exact, grid
            taken = nonzero & exact if fold.possible else taken
        hard = hard | (nonzero & ~taken)
        _need(facts, hard, layer, user, grid)
        _link(facts.add, taken, layer, user, grid)
        _link(facts.fold, weights & ~hard & ~taken, layer, user, grid)


def _need(facts: Facts, pairs: Tensor, layer: Layer, user: Layer, grid: str) -> None:
    """Let users need their units; where all of some need all of others, without a list of pairs."""
    both = set(layer.dims) & set(user.dims)
    if all(pairs.shape[grid.index(label)] == 1 for label in both):
        order = [*layer.dims, *(label for label in user.dims if label not in both)]
        order += [label for label in grid if label not in order]
        met = pairs.permute([grid.index(label) for label in order])
        met = met.reshape(layer.ids.numel(), user.ids.numel(), -1).any(2)
        of_units, of_users = met.any(1), met.any(0)
        if int(met.sum()) == int(of_units.sum()) * int(of_users.sum()):
            units, users = layer.ids.reshape(-1)[of_units], user.ids.reshape(-1)[of_users]
            facts.use_all(units, users)
            return
    _link(facts.use, pairs, layer, user, grid)


def _link(
    add: Callable[[Tensor, Tensor], None], pairs: Tensor, layer: Layer, user: Layer, grid: str
) -> None:
    units = placed(layer.ids, layer.dims, grid).expand_as(pairs)[pairs]
    add(units, placed(user.ids, user.dims, grid).expand_as(pairs)[pairs])


def _met(facts: Facts, a: Labelled, b: Labelled, layer: Layer, user: Layer) -> None:
    """Say which units of a product of two activations matter: where neither factor is zero."""
    grid = "".join(layer.dims)
    matters = torch.ones((), dtype=torch.bool)
    for operand in (a, b):
        present, order = operand.any_over(operand.value.nonzero, layer.dims)
        matters = matters & placed(present, order, grid)
    matters = matters.expand_as(layer.ids)
    _link(facts.use, matters, layer, user, grid)
    _link(facts.fold, ~matters, layer, user, grid)


def _counts(a: Labelled, b: Labelled, elsewhere: str) -> bool:
    """Whether a sum depends on how many terms the inputs give it.

    Only what the second operand has units along has a number of its own.
    """
    fixed = {label for layer in b.layers for label in layer.dims}
    return not {*a.labels, *b.labels} <= fixed | set(elsewhere)


def _varying(a: Labelled, b: Labelled, out: str, summed: set[str], bound: bool) -> Tensor:
    """A sum varies if one of its products does: one factor varies and the other is not zero.

    What is made of constants counts as varying in three cases more: if both factors are
    activations, or the number of terms is that of some positions, the sum depends on how many
    there are; and if units of the first share parameters of the second, these would get other
    gradients without one of them. The last two are what ``bound`` says.
    """
    known = summed | set(out)
    varies = torch.zeros([_length(a, b, label) for label in out], dtype=torch.bool)
    all_of_it = a.value.fed and (b.value.fed or bound)
    for one, other in ((a, b), (b, a)):
        if all_of_it or not one.value.constant:
            flags = one.value.nonzero if all_of_it else one.value.varies.expand(one.value.shape)
            moving, labels = one.any_over(flags, known)
            present, others = other.any_over(other.value.nonzero, known)
            total = torch.einsum(f"{labels},{others}->{out}", moving.float(), present.float())
            varies = varies | (total > 0)
    return varies


def _length(a: Labelled, b: Labelled, label: str) -> int:
    operand = a if label in a.labels else b
    return operand.value.shape[operand.labels.index(label)]
